//! The catalogue from which instances are made: regions and zones, instance types, disk categories and images. Only the
//! number of interfaces and addresses that a type has room for affects packets.

use serde::{Deserialize, Serialize};

/// Regions of the cloud in the order in which it lists them, with their names in Chinese and English.
const REGION_NAMES: [(&str, &str, &str); 28] = [
    ("cn-qingdao", "华北1（青岛）", "China (Qingdao)"),
    ("cn-beijing", "华北2（北京）", "China (Beijing)"),
    ("cn-zhangjiakou", "华北3（张家口）", "China (Zhangjiakou)"),
    ("cn-huhehaote", "华北5（呼和浩特）", "China (Hohhot)"),
    ("cn-wulanchabu", "华北6（乌兰察布）", "China (Ulanqab)"),
    ("cn-hangzhou", "华东1（杭州）", "China (Hangzhou)"),
    ("cn-shanghai", "华东2（上海）", "China (Shanghai)"),
    ("cn-nanjing", "华东5（南京-本地地域）", "China (Nanjing-Local Region)"),
    ("cn-shenzhen", "华南1（深圳）", "China (Shenzhen)"),
    ("cn-heyuan", "华南2（河源）", "China (Heyuan)"),
    ("cn-guangzhou", "华南3（广州）", "China (Guangzhou)"),
    ("cn-fuzhou", "华东6（福州-本地地域）", "China (Fuzhou-Local Region)"),
    ("cn-wuhan-lr", "华中1（武汉-本地地域）", "China (Wuhan-Local Region)"),
    ("cn-chengdu", "西南1（成都）", "China (Chengdu)"),
    ("cn-hongkong", "中国香港", "China (Hong Kong)"),
    ("ap-northeast-1", "日本（东京）", "Japan (Tokyo)"),
    ("ap-northeast-2", "韩国（首尔）", "South Korea (Seoul)"),
    ("ap-southeast-1", "新加坡", "Singapore"),
    ("ap-southeast-3", "马来西亚（吉隆坡）", "Malaysia (Kuala Lumpur)"),
    ("ap-southeast-6", "菲律宾（马尼拉）", "Philippines (Manila)"),
    ("ap-southeast-5", "印度尼西亚（雅加达）", "Indonesia (Jakarta)"),
    ("ap-southeast-7", "泰国（曼谷）", "Thailand (Bangkok)"),
    ("us-east-1", "美国（弗吉尼亚）", "US (Virginia)"),
    ("us-west-1", "美国（硅谷）", "US (Silicon Valley)"),
    ("eu-west-1", "英国（伦敦）", "UK (London)"),
    ("me-east-1", "阿联酋（迪拜）", "UAE (Dubai)"),
    ("me-central-1", "沙特（利雅得）", "SAU (Riyadh)"),
    ("eu-central-1", "德国（法兰克福）", "Germany (Frankfurt)"),
];

/// A region's position in the cloud's list, after which unknown ones come, and its name; an unknown one has its
/// identifier.
pub(in crate::ecs) fn region_name(id: &str, is_english: bool) -> (usize, &str) {
    let known = REGION_NAMES.iter().enumerate().find(|(_, (known, ..))| *known == id);
    known.map_or((REGION_NAMES.len(), id), |(place, (_, chinese, english))| {
        (place, if is_english { *english } else { *chinese })
    })
}

/// What instances can be made of; the table `api.catalogue` of the settings file. A list given there replaces the whole
/// list of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalogue {
    /// The letters that a region's zones end with.
    pub zones: Vec<String>,
    /// Instance types.
    pub instance_types: Vec<InstanceType>,
    /// Categories of disks; the first is the default.
    pub disk_categories: Vec<String>,
    /// Public images.
    pub images: Vec<Image>,
}

/// An instance type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceType {
    /// Its identifier, as in `ecs.g7.large`.
    pub id: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Graphics processors.
    #[serde(default)]
    pub gpus: u32,
    /// The kind of graphics processor.
    #[serde(default)]
    pub gpu: String,
    /// The size of its local disk, GiB; 0 for none.
    #[serde(default)]
    pub local_disk_gib: u32,
    /// Network cards that its interfaces are spread over.
    #[serde(default = "one_card")]
    pub network_cards: u32,
    /// Network interfaces, the primary one included; at most 8 are used.
    pub enis: u32,
    /// IPv4 addresses of an interface, the primary one included.
    pub ipv4_per_eni: u32,
    /// IPv6 addresses of an interface.
    pub ipv6_per_eni: u32,
}

impl InstanceType {
    /// Its family: `ecs.g7` of `ecs.g7.large`, `ecs.t6` of `ecs.t6-c1m2.large`.
    pub(in crate::ecs) fn family(&self) -> &str {
        family_of(&self.id)
    }

    /// The processor architecture.
    pub(in crate::ecs) fn architecture(&self) -> &'static str {
        if self.family().ends_with(['y', 'r']) { "ARM" } else { "X86" }
    }
}

/// The family of a type by its identifier.
pub(in crate::ecs) fn family_of(id: &str) -> &str {
    let family = id.rsplit_once('.').map_or("", |(family, _)| family);
    family.split_once('-').map_or(family, |(family, _)| family)
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its identifier.
    pub id: String,
    /// Its family, as in `acs:ubuntu_22_04_x64`.
    #[serde(default)]
    pub family: String,
    /// The operating system's name, as in `Ubuntu  22.04 64 bit`.
    pub os_name: String,
    /// The operating system's vendor, as in `Ubuntu`.
    pub platform: String,
    /// `linux` or `windows`.
    #[serde(default = "linux")]
    pub os_type: String,
    /// `x86_64` or `arm64`.
    #[serde(default = "x86_64")]
    pub architecture: String,
    /// The least size of a system disk, GiB.
    pub size_gib: u32,
}

fn one_card() -> u32 {
    1
}

fn linux() -> String {
    "linux".into()
}

fn x86_64() -> String {
    "x86_64".into()
}

/// Families: memory per processor in MiB, and the processors of their types.
const FAMILIES: [(&str, u32, &[u32]); 22] = [
    ("ecs.c5", 2048, &[2, 4, 8, 16]),
    ("ecs.g5", 4096, &[2, 4, 8, 16]),
    ("ecs.r5", 8192, &[2, 4, 8, 16]),
    ("ecs.c6", 2048, &[2, 4, 8, 16, 32]),
    ("ecs.g6", 4096, &[2, 4, 8, 16, 32]),
    ("ecs.r6", 8192, &[2, 4, 8, 16, 32]),
    ("ecs.c7", 2048, &[2, 4, 8, 16, 32, 64, 128]),
    ("ecs.g7", 4096, &[2, 4, 8, 16, 32, 64, 128]),
    ("ecs.r7", 8192, &[2, 4, 8, 16, 32, 64, 128]),
    ("ecs.g7nex", 4096, &[8, 16, 32, 64, 128]),
    ("ecs.c8i", 2048, &[2, 4, 8, 16, 32, 64, 192]),
    ("ecs.g8i", 4096, &[2, 4, 8, 16, 32, 64, 192]),
    ("ecs.r8i", 8192, &[2, 4, 8, 16, 32, 64, 192]),
    ("ecs.c8a", 2048, &[2, 4, 8, 16, 32, 64]),
    ("ecs.g8a", 4096, &[2, 4, 8, 16, 32, 64]),
    ("ecs.g8y", 4096, &[2, 4, 8, 16, 32]),
    ("ecs.sccc7", 2048, &[128]),
    ("ecs.sn1ne", 2048, &[2, 4, 8, 16]),
    ("ecs.sn2ne", 4096, &[2, 4, 8, 16]),
    ("ecs.n4", 2048, &[1, 2, 4, 8]),
    ("ecs.mn4", 4096, &[1, 2, 4, 8]),
    ("ecs.xn4", 1024, &[1]),
];

/// Types whose names do not give the number of processors: processors, memory in MiB, graphics processors and their
/// kind.
const OTHER_TYPES: [(&str, u32, u32, u32, &str); 7] = [
    ("ecs.t5-lc1m1.small", 1, 1024, 0, ""),
    ("ecs.t5-lc1m2.small", 1, 2048, 0, ""),
    ("ecs.t5-c1m2.large", 2, 4096, 0, ""),
    ("ecs.t6-c1m1.large", 2, 2048, 0, ""),
    ("ecs.t6-c1m2.large", 2, 4096, 0, ""),
    ("ecs.gn5-c4g1.xlarge", 4, 30720, 1, "NVIDIA P100"),
    ("ecs.gn5-c8g1.2xlarge", 8, 61440, 1, "NVIDIA P100"),
];

/// Images: identifier without its end, operating system, vendor and size in GiB.
const IMAGES: [(&str, &str, &str, u32); 15] = [
    ("ubuntu_24_04_x64_20G", "Ubuntu  24.04 64 bit", "Ubuntu", 20),
    ("ubuntu_22_04_x64_20G", "Ubuntu  22.04 64 bit", "Ubuntu", 20),
    ("ubuntu_20_04_x64_20G", "Ubuntu  20.04 64 bit", "Ubuntu", 20),
    ("ubuntu_18_04_x64_20G", "Ubuntu  18.04 64 bit", "Ubuntu", 20),
    ("debian_12_6_x64_20G", "Debian  12.6 64 bit", "Debian", 20),
    ("debian_11_10_x64_20G", "Debian  11.10 64 bit", "Debian", 20),
    ("aliyun_3_x64_20G", "Alibaba Cloud Linux  3.2104 LTS 64 bit", "Aliyun", 20),
    ("aliyun_3_x64_20G_scc", "Alibaba Cloud Linux  3.2104 LTS 64 bit", "Aliyun", 20),
    ("aliyun_3_arm64_20G", "Alibaba Cloud Linux  3.2104 LTS 64 bit ARM", "Aliyun", 20),
    ("centos_7_9_x64_20G", "CentOS  7.9 64 bit", "CentOS", 20),
    ("rockylinux_9_4_x64_20G", "Rocky Linux  9.4 64 bit", "Rocky Linux", 20),
    ("opensuse_15_6_x64_20G", "OpenSUSE  15.6 64 bit", "OpenSUSE", 20),
    ("freebsd_14_1_x64_20G", "FreeBSD  14.1 64 bit", "FreeBSD", 20),
    ("win2022_21H2_x64_dtc_zh-cn_40G", "Windows Server  2022 数据中心版 64位中文版", "Windows Server 2022", 40),
    ("win2022_21H2_x64_dtc_en-us_40G", "Windows Server  2022 64 bit", "Windows Server 2022", 40),
];

impl Default for Catalogue {
    fn default() -> Self {
        let types = FAMILIES.iter().flat_map(|(family, memory_mib, sizes)| {
            sizes.iter().map(move |cpus| {
                let size = match cpus {
                    1 => "small".to_owned(),
                    2 => "large".to_owned(),
                    4 => "xlarge".to_owned(),
                    more => format!("{}xlarge", more / 4),
                };
                instance_type(&format!("{family}.{size}"), *cpus, memory_mib * cpus, (0, ""))
            })
        });
        let others = OTHER_TYPES
            .iter()
            .map(|(id, cpus, memory_mib, gpus, gpu)| instance_type(id, *cpus, *memory_mib, (*gpus, gpu)));
        let image = |(name, os_name, platform, size_gib): &(&str, &str, &str, u32)| Image {
            id: format!("{name}_alibase_20240926.vhd"),
            family: format!("acs:{}", name.rsplit_once("_20G").or(name.rsplit_once("_40G")).map_or(*name, |(n, _)| n)),
            os_name: (*os_name).into(),
            platform: (*platform).into(),
            os_type: if name.starts_with("win") { "windows".into() } else { linux() },
            architecture: if name.contains("arm64") { "arm64".into() } else { x86_64() },
            size_gib: *size_gib,
        };
        Self {
            zones: ('a'..='k').map(String::from).collect(),
            instance_types: types.chain(others).collect(),
            disk_categories: ["cloud_efficiency", "cloud_ssd", "cloud_essd", "cloud_auto", "cloud_essd_entry"]
                .map(String::from)
                .into(),
            images: IMAGES.iter().map(image).collect(),
        }
    }
}

/// A type with the number of interfaces and addresses that types of its size have.
fn instance_type(id: &str, cpus: u32, memory_mib: u32, (gpus, gpu): (u32, &str)) -> InstanceType {
    let (enis, ipv4_per_eni) = match cpus {
        0..=1 => (2, 4),
        2 => (3, 6),
        3..=4 => (4, 15),
        5..=8 => (4, 15),
        9..=16 => (8, 30),
        _ => (8, 50),
    };
    let ipv6_per_eni = ipv4_per_eni.min(10);
    // Of the types here, those with a graphics processor have a local disk.
    let local_disk_gib = if gpus > 0 { 440 } else { 0 };
    let gpu = gpu.into();
    InstanceType {
        id: id.into(),
        cpus,
        memory_mib,
        gpus,
        gpu,
        local_disk_gib,
        network_cards: if cpus < 128 { 1 } else { 2 },
        enis,
        ipv4_per_eni,
        ipv6_per_eni,
    }
}

impl Catalogue {
    /// The zones of a region.
    pub(in crate::ecs) fn zones_of(&self, region: &str) -> Vec<String> {
        let dash = if region.starts_with("cn-") { "-" } else { "" };
        self.zones.iter().map(|letter| format!("{region}{dash}{letter}")).collect()
    }

    /// A type by its identifier.
    pub(in crate::ecs) fn instance_type(&self, id: &str) -> Option<&InstanceType> {
        self.instance_types.iter().find(|one| one.id == id)
    }

    /// An image by its identifier.
    pub(in crate::ecs) fn image(&self, id: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_type_and_image_is_there_once_and_fits_what_an_instance_may_have() {
        let catalogue = Catalogue::default();
        let types: BTreeSet<&str> = catalogue.instance_types.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(types.len(), catalogue.instance_types.len());
        assert!(catalogue.instance_types.iter().all(|one| one.enis <= 8 && one.ipv4_per_eni <= 50));
        let images: BTreeSet<&str> = catalogue.images.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(images.len(), catalogue.images.len());
        assert_eq!(catalogue.instance_type("ecs.t6-c1m2.large").map(InstanceType::family), Some("ecs.t6"));
        assert_eq!(catalogue.instance_type("ecs.g8y.large").map(InstanceType::architecture), Some("ARM"));
        assert_eq!(catalogue.instance_type("ecs.r7.large").map(InstanceType::architecture), Some("X86"));
    }
}

//! The region in a request's host name.

/// The region in a host of the cloud's form, with a port or without: `ecs.cn-beijing.aliyuncs.com`,
/// `ecs-cn-hangzhou.aliyuncs.com`.
pub(super) fn region_of_host(host: &str) -> Option<String> {
    let name = host.split_once(':').map_or(host, |(name, _)| name).trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = name.strip_suffix(".aliyuncs.com")?.split('.').collect();
    let region = match labels[..] {
        [product_and_region] => product_and_region.split_once('-')?.1,
        [_, region] => region,
        _ => return None,
    };
    // Every region has a dash in its name; product names in the cloud's internal networks have an additional word.
    region.contains('-').then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_hosts() {
        for (host, region) in [
            ("ecs.cn-beijing.aliyuncs.com", "cn-beijing"),
            ("vpc.ap-southeast-1.aliyuncs.com:443", "ap-southeast-1"),
            ("ecs-vpc.cn-beijing.aliyuncs.com", "cn-beijing"),
            ("ECS-CN-Hangzhou.AliyunCS.com.", "cn-hangzhou"),
        ] {
            assert_eq!(region_of_host(host).as_deref(), Some(region), "{host}");
        }
        for host in [
            "ecs.aliyuncs.com",
            "ecs-vpc.aliyuncs.com",
            "aliyuncs.com",
            "ecs.cn-beijing.example.com",
            "a.ecs.cn-beijing.aliyuncs.com",
            "127.0.0.1:8773",
            "[::1]:80",
            "localhost",
            "",
        ] {
            assert_eq!(region_of_host(host), None, "{host}");
        }
    }
}

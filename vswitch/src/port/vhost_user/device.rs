//! What a front end says of its device: memory, features, and the queues it starts and stops.

use super::chain::{RING_SIZE_MAX, RingAddresses};
use super::dirty_log::DirtyLog;
use super::features::{Feature, Features, offered_protocol};
use super::guest_memory::{GuestMemory, REGIONS_MAX, Region, RegionSpec};
use super::port_queues::{PortQueues, SharedQueues};
use super::queue::QueueParts;
use super::ring::{Ring, RingFormat};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::sync::Arc;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

/// Bytes of the part of the device's configuration that is told, and what may be asked for.
const CONFIG_BYTES: usize = 256;
/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// What a kick or an interrupt goes by, as `/proc` names it.
const EVENT_COUNTER: &[u8] = b"anon_inode:[eventfd]";

/// Where the guest kicks a queue; watched for as long as this is there.
#[derive(Debug)]
struct Kick {
    counter: OwnedFd,
    registry: mio::Registry,
}

impl Drop for Kick {
    fn drop(&mut self) {
        // Others hold the counter too, so that closing it here would not end the watch.
        let _ = self.registry.deregister(&mut SourceFd(&self.counter.as_raw_fd()));
    }
}

/// What the front end has said of a queue.
#[derive(Debug, Default)]
struct QueueSetup {
    size: u32,
    base: u32,
    addresses: Option<RingAddresses>,
    kick: Option<Kick>,
    call: Option<Arc<OwnedFd>>,
    is_started: bool,
    is_enabled: bool,
}

/// A device, as one front end has set it up.
#[derive(Debug)]
pub(super) struct VirtioDevice {
    number: u64,
    queues: SharedQueues,
    features: Features,
    protocol: u64,
    memory: Arc<GuestMemory>,
    log: Option<Arc<DirtyLog>>,
    setups: Vec<QueueSetup>,
}

impl VirtioDevice {
    pub(super) fn new(number: u64, queues: SharedQueues) -> Self {
        let setups = (0..queues.count()).map(|_| QueueSetup::default()).collect();
        let (memory, log) = (Arc::default(), None);
        Self { number, queues, features: Features::default(), protocol: 0, memory, log, setups }
    }

    /// Whether the front end asked for replies.
    pub(super) fn has_reply_ack(&self) -> bool {
        self.protocol & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    fn setup(&mut self, index: usize) -> Result<&mut QueueSetup> {
        self.setups.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Stops using a queue; it stays as it is set up.
    fn suspend(&mut self, index: usize) {
        if let Some(base) = self.queues.remove(index, self.number)
            && let Some(setup) = self.setups.get_mut(index)
        {
            setup.base = base;
        }
    }

    fn suspend_all(&mut self) {
        (0..self.setups.len()).for_each(|index| self.suspend(index));
    }

    /// Uses a queue from now on, if it is ready for that.
    fn resume(&mut self, index: usize) -> Result<()> {
        let Some(setup) = self.setups.get(index) else { return Ok(()) };
        // QEMU before 8.0 agrees on features of the protocol and enables queues, but does not set the bit for them.
        let starts_disabled = self.features.has(Feature::ProtocolFeatures) || self.protocol != 0;
        let is_enabled = setup.is_enabled || !starts_disabled;
        let Some(addresses) = setup.addresses.filter(|_| setup.is_started && is_enabled && setup.size > 0) else {
            return Ok(());
        };
        let is_packed = self.features.has(Feature::PackedRing);
        if !is_packed && !setup.size.is_power_of_two() {
            return Err(refusal(format!("queue {index} has {} entries, which is no power of two", setup.size)));
        }
        let format = RingFormat { is_packed, has_event_index: self.features.has(Feature::EventIndex) };
        let ring = Ring::new(&self.memory, addresses, setup.size as u16, format, setup.base);
        let ring = ring.ok_or_else(|| refusal(format!("queue {index} is not in memory that is shared")))?;
        let parts = QueueParts {
            ring,
            direction: PortQueues::direction(index),
            memory: Arc::clone(&self.memory),
            features: self.features,
            log: self.log.clone().filter(|_| self.features.has(Feature::LogAll)),
            call: setup.call.clone(),
        };
        self.queues.install(index, self.number, parts);
        Ok(())
    }

    fn resume_all(&mut self) -> Result<()> {
        (0..self.setups.len()).try_for_each(|index| self.resume(index))
    }

    /// Changes something that queues depend on, while none of them is in use.
    fn change(&mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.suspend_all();
        let changed = change(self);
        self.resume_all().and(changed)
    }

    /// Changes something of one queue while it is not in use.
    fn change_queue(&mut self, index: usize, change: impl FnOnce(&mut QueueSetup) -> Result<()>) -> Result<()> {
        self.suspend(index);
        let changed = self.setup(index).and_then(change);
        self.resume(index).and(changed)
    }

    /// The driver has reset the device. Where its queues were is kept: QEMU before 8.0 resets a device that it stops, and asks
    /// for that afterwards, to go on from there in another process.
    pub(super) fn reset(&mut self) {
        self.suspend_all();
        self.features = Features::default();
        self.setups.iter_mut().for_each(|setup| *setup = QueueSetup { base: setup.base, ..QueueSetup::default() });
    }

    fn set_regions(&mut self, regions: Vec<Region>) -> Result<()> {
        self.memory = Arc::new(GuestMemory::new(regions).map_err(Error::ReqHandlerError)?);
        Ok(())
    }

    /// The configuration of a network device (VIRTIO 1.2 §5.1.4).
    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&self.queues.mac.0);
        config[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        config[8..10].copy_from_slice(&self.queues.spec.queues.to_le_bytes());
        config[10..12].copy_from_slice(&self.queues.spec.mtu_bytes.to_le_bytes());
        config
    }
}

impl Drop for VirtioDevice {
    fn drop(&mut self) {
        self.suspend_all();
    }
}

fn refusal(text: String) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// An event counter that a front end gave. Anything else might make a worker wait when it writes there.
fn event_counter(file: File) -> Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let target = rustix::fs::readlink(link, Vec::new()).map_err(|error| Error::ReqHandlerError(error.into()))?;
    if target.as_bytes() != EVENT_COUNTER {
        return Err(refusal("kicks and interrupts go by event counters (eventfd)".into()));
    }
    let flags = rustix::fs::fcntl_getfl(file.as_fd()).map_err(|error| Error::ReqHandlerError(error.into()))?;
    rustix::fs::fcntl_setfl(file.as_fd(), flags | OFlags::NONBLOCK)
        .map_err(|error| Error::ReqHandlerError(error.into()))?;
    Ok(file.into())
}

const fn unsupported() -> Error {
    Error::InvalidOperation("not offered")
}

impl VhostUserBackendReqHandlerMut for VirtioDevice {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(Features::offered().0)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !Features::offered().0;
        if unknown != 0 {
            return Err(refusal(format!("features {unknown:#x} were not offered")));
        }
        self.change(|device| {
            device.features = Features(features);
            Ok(())
        })
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<vhost::VhostUserMemoryRegionBase>>> {
        let specs = regions.iter().map(|region| RegionSpec {
            guest_address: region.guest_phys_addr,
            user_address: region.user_addr,
            bytes: region.memory_size,
            file_offset: region.mmap_offset,
        });
        let mapped: io::Result<Vec<_>> = specs.zip(&files).map(|(spec, file)| Region::new(spec, file)).collect();
        let mapped = mapped.map_err(Error::ReqHandlerError)?;
        self.change(|device| device.set_regions(mapped)).map(|()| None)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        if size == 0 || size > RING_SIZE_MAX {
            return Err(refusal(format!("a queue of {size} entries; 1 to {RING_SIZE_MAX} will do")));
        }
        self.change_queue(index as usize, |setup| {
            setup.size = size;
            Ok(())
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        device: u64,
        driver: u64,
        _log: u64,
    ) -> Result<()> {
        // The used part is logged wherever pages are logged at all: its address is known from the memory.
        self.change_queue(index as usize, |setup| {
            setup.addresses = Some(RingAddresses { descriptors, driver, device });
            Ok(())
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.change_queue(index as usize, |setup| {
            setup.base = base;
            Ok(())
        })
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.suspend(index as usize);
        let setup = self.setup(index as usize)?;
        setup.is_started = false;
        (setup.kick, setup.call) = (None, None);
        Ok(VhostUserVringState::new(index, setup.base))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let index = usize::from(index);
        let kick = match file {
            // The port is asked at its worker's turns; a guest that cannot kick waits until the worker wakes by itself.
            None => None,
            Some(file) => {
                self.setup(index)?;
                let counter = event_counter(file)?;
                let registry = self.queues.part(index).registry.try_clone().map_err(Error::ReqHandlerError)?;
                Some(Kick { counter, registry })
            }
        };
        self.change_queue(index, |setup| {
            setup.kick = None;
            if let Some(kick) = &kick {
                let descriptor = kick.counter.as_raw_fd();
                let watched = kick.registry.register(&mut SourceFd(&descriptor), Token(index), Interest::READABLE);
                watched.map_err(Error::ReqHandlerError)?;
            }
            (setup.kick, setup.is_started) = (kick, true);
            Ok(())
        })
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = file.map(event_counter).transpose()?.map(Arc::new);
        self.change_queue(usize::from(index), |setup| {
            setup.call = call;
            Ok(())
        })
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        self.setup(usize::from(index)).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(offered_protocol())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.protocol = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(u64::from(self.queues.spec.queues))
    }

    fn set_vring_enable(&mut self, index: u32, is_enabled: bool) -> Result<()> {
        self.change_queue(index as usize, |setup| {
            setup.is_enabled = is_enabled;
            Ok(())
        })
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let end = offset.checked_add(size).ok_or(Error::InvalidParam)?;
        self.config().get(offset as usize..end as usize).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _offset: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        // A driver may only write the hardware address of a legacy device, and the ENI's stays what it is.
        Ok(())
    }

    fn set_gpu_socket(&mut self, _backend: GpuBackend) -> Result<()> {
        Err(unsupported())
    }

    fn get_shared_object(&mut self, _object: VhostUserSharedMsg) -> Result<File> {
        Err(unsupported())
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(unsupported())
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(unsupported())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<vhost::VhostUserMemoryRegionBase>> {
        let added = Region::new(spec_of(region), &file).map_err(Error::ReqHandlerError)?;
        let mut regions = self.memory.regions().to_vec();
        regions.push(added);
        self.change(|device| device.set_regions(regions)).map(|()| None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        // The offset in the file need not be told again.
        let removed = RegionSpec { file_offset: 0, ..spec_of(region) };
        let is_other = |other: &&Region| RegionSpec { file_offset: 0, ..other.spec } != removed;
        let regions: Vec<Region> = self.memory.regions().iter().filter(is_other).cloned().collect();
        if regions.len() == self.memory.regions().len() {
            return Err(refusal("a region of memory that was never added cannot be removed".into()));
        }
        self.change(|device| device.set_regions(regions))
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(unsupported())
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(unsupported())
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(unsupported())
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let log = DirtyLog::new(&file, log.mmap_offset, log.mmap_size).map_err(Error::ReqHandlerError)?;
        self.change(|device| {
            device.log = Some(Arc::new(log));
            Ok(())
        })
    }
}

fn spec_of(region: &VhostUserSingleMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest_address: region.guest_phys_addr,
        user_address: region.user_addr,
        bytes: region.memory_size,
        file_offset: region.mmap_offset,
    }
}

//! What is known of every ENI, as the control plane told it last.

use crate::metadata::token::TokenKey;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vswitch_core::config::ids::{EniId, VpcId};
use vswitch_core::config::services::record::{GuestRecord, RecordLine};

/// Who asks. The forwarding plane says so by the port that a packet came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker {
    /// The VPC.
    pub vpc: VpcId,
    /// The ENI.
    pub eni: EniId,
}

/// All records.
#[derive(Debug, Default)]
pub struct GuestDirectory {
    records: BTreeMap<EniId, GuestRecord>,
    /// The ENIs with an address in a VPC. It is one unless a change is on its way.
    by_address: BTreeMap<(VpcId, IpAddr), BTreeSet<EniId>>,
    /// The ENIs of a name in a VPC, in lower case: the host names and identifiers of instances, and the ENIs' own.
    by_name: BTreeMap<(VpcId, String), BTreeSet<EniId>>,
    token_key: Option<TokenKey>,
    /// While all records are being sent: those that have been.
    sent: Option<BTreeSet<EniId>>,
}

impl GuestDirectory {
    /// Takes up what the control plane says.
    pub fn enter(&mut self, line: RecordLine) {
        match line {
            RecordLine::Begin { token_key } => {
                self.token_key = TokenKey::from_text(&token_key);
                self.sent = Some(BTreeSet::new());
            }
            RecordLine::Record { eni, record } => {
                if let Some(sent) = &mut self.sent {
                    sent.insert(eni.clone());
                }
                self.replace(&eni, record.map(|record| *record));
            }
            RecordLine::Complete {} => {
                let Some(sent) = self.sent.take() else { return };
                let gone: Vec<EniId> = self.records.keys().filter(|eni| !sent.contains(*eni)).cloned().collect();
                gone.iter().for_each(|eni| self.replace(eni, None));
            }
        }
    }

    fn replace(&mut self, eni: &EniId, record: Option<GuestRecord>) {
        if let Some(old) = self.records.remove(eni) {
            for name in names_of(eni, &old) {
                remove(&mut self.by_name, (old.vpc.clone(), name), eni);
            }
            for address in addresses_of(&old) {
                remove(&mut self.by_address, (old.vpc.clone(), address), eni);
            }
        }
        let Some(record) = record else { return };
        for name in names_of(eni, &record) {
            self.by_name.entry((record.vpc.clone(), name)).or_default().insert(eni.clone());
        }
        for address in addresses_of(&record) {
            self.by_address.entry((record.vpc.clone(), address)).or_default().insert(eni.clone());
        }
        self.records.insert(eni.clone(), record);
    }

    /// The record of who asks. None if it is unknown, or was of another VPC when the control plane told it.
    pub fn record(&self, asker: &Asker) -> Option<&GuestRecord> {
        self.records.get(&asker.eni).filter(|record| record.vpc == asker.vpc)
    }

    /// The ENIs of an instance, the primary one first.
    pub fn enis_of_instance<'a>(
        &'a self,
        record: &'a GuestRecord,
    ) -> impl Iterator<Item = (&'a EniId, &'a GuestRecord)> {
        let instance = record.instance.as_ref();
        let enis = instance.into_iter().flat_map(|instance| &instance.enis);
        enis.filter_map(move |eni| {
            let other = self.records.get_key_value(eni)?;
            let is_of_it = other.1.instance.as_ref().zip(instance).is_some_and(|(one, other)| one.id == other.id);
            is_of_it.then_some(other)
        })
    }

    /// The ENIs that a name stands for in a VPC.
    pub fn named(&self, vpc: &VpcId, name: &str) -> impl Iterator<Item = &GuestRecord> {
        let enis = self.by_name.get(&(vpc.clone(), name.to_ascii_lowercase()));
        enis.into_iter().flatten().filter_map(|eni| self.records.get(eni))
    }

    /// The name of the guest that has an address in a VPC.
    pub fn name_at(&self, vpc: &VpcId, address: IpAddr) -> Option<String> {
        let eni = self.by_address.get(&(vpc.clone(), address))?.first()?;
        names_of(eni, self.records.get(eni)?).next()
    }

    /// The secret of tokens; none until the control plane has told it.
    pub fn token_key(&self) -> Option<&TokenKey> {
        self.token_key.as_ref()
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<EniId>>, key: K, eni: &EniId) {
    if let std::collections::btree_map::Entry::Occupied(mut entry) = index.entry(key) {
        entry.get_mut().remove(eni);
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

/// The names of an ENI's guest, the one that it is known by first. An instance lends its names to its primary ENI.
fn names_of<'a>(eni: &'a EniId, record: &'a GuestRecord) -> impl Iterator<Item = String> + 'a {
    let instance = record.instance.iter().filter(move |instance| instance.enis.first() == Some(eni));
    let of_instance = instance.flat_map(|instance| [instance.host_name.as_str(), &instance.id]);
    let names = of_instance.chain([eni.as_str()]).filter(|name| !name.is_empty());
    names.map(str::to_ascii_lowercase)
}

fn addresses_of(record: &GuestRecord) -> impl Iterator<Item = IpAddr> + '_ {
    let v4 = record.ipv4.iter().copied().map(IpAddr::V4);
    v4.chain(record.ipv6.iter().copied().map(IpAddr::V6))
}

//! The sets of addresses that the ACLs of a VPC mention.

use crate::config::desired::Remote;
use crate::config::ids::{GroupId, PrefixListId};
use crate::tables::address_class::SetId;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use hashbrown::HashMap;
use ipnet::IpNet;

/// Once this many sets, in addition to a quarter of the others, are no longer mentioned, they are dropped. Until then
/// they are kept up to date, so that a rule that comes back does not require every member to be located again.
const UNMENTIONED_MAX: usize = 64;

/// What a set stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SetKey {
    Prefix(IpNet),
    PrefixList(PrefixListId),
    Group(GroupId),
}

#[derive(Debug)]
struct AddressSet {
    key: SetKey,
    /// The ACLs that mention it.
    acls: BTreeSet<u32>,
}

/// The sets, and the ACLs that mention each.
#[derive(Debug, Default)]
pub(super) struct Sets {
    numbers: HashMap<SetKey, SetId>,
    sets: Vec<Option<AddressSet>>,
    free: Vec<SetId>,
    unmentioned: BTreeSet<SetId>,
    /// Sets whose members have not been added yet.
    new: Vec<SetId>,
}

impl Sets {
    pub(super) fn find(&self, key: &SetKey) -> Option<SetId> {
        self.numbers.get(key).copied()
    }

    /// The set that a rule names. New sets are returned by [`Sets::take_new`].
    pub(super) fn intern(&mut self, remote: &Remote) -> SetId {
        let key = match remote {
            Remote::Prefix(prefix) => SetKey::Prefix(prefix.trunc()),
            Remote::PrefixList(list) => SetKey::PrefixList(list.clone()),
            Remote::Group(group) => SetKey::Group(group.clone()),
        };
        if let Some(id) = self.find(&key) {
            return id;
        }
        // Numbers of removed sets are reused, since bit sets are as long as the highest number.
        let id = self.free.pop().unwrap_or_else(|| {
            self.sets.push(None);
            SetId(self.sets.len() as u32 - 1)
        });
        self.numbers.insert(key.clone(), id);
        self.sets[id.0 as usize] = Some(AddressSet { key, acls: BTreeSet::new() });
        // The ACL that asks mentions it only once its compilation is complete.
        self.unmentioned.insert(id);
        self.new.push(id);
        id
    }

    pub(super) fn take_new(&mut self) -> Vec<(SetId, SetKey)> {
        let new = core::mem::take(&mut self.new);
        new.into_iter().filter_map(|id| Some((id, self.sets[id.0 as usize].as_ref()?.key.clone()))).collect()
    }

    /// Replaces the sets that an ACL mentions. Both lists are ascending.
    pub(super) fn mention(&mut self, acl: u32, before: &[SetId], now: &[SetId]) {
        for id in only_in_first(now, before) {
            if let Some(Some(set)) = self.sets.get_mut(id.0 as usize) {
                set.acls.insert(acl);
                self.unmentioned.remove(&id);
            }
        }
        for id in only_in_first(before, now) {
            if let Some(Some(set)) = self.sets.get_mut(id.0 as usize) {
                set.acls.remove(&acl);
                if set.acls.is_empty() {
                    self.unmentioned.insert(id);
                }
            }
        }
    }

    pub(super) fn filters_of(&self, id: SetId) -> impl Iterator<Item = u32> {
        self.sets.get(id.0 as usize).into_iter().flatten().flat_map(|set| set.acls.iter().copied())
    }

    /// Removes and returns the sets that no ACL mentions, if there are many.
    pub(super) fn take_worn(&mut self) -> Vec<(SetId, SetKey)> {
        // Removing a set recomputes the addresses of its members; removing many at once costs one pass.
        if self.unmentioned.len() <= UNMENTIONED_MAX + self.numbers.len() / 4 {
            return Vec::new();
        }
        let worn = core::mem::take(&mut self.unmentioned);
        let taken: Vec<_> =
            worn.into_iter().filter_map(|id| Some((id, self.sets[id.0 as usize].take()?.key))).collect();
        // The caller takes the members out before another set can be interned under this number.
        for (id, key) in &taken {
            self.numbers.remove(key);
            self.free.push(*id);
        }
        taken
    }
}

/// The elements of one ascending list that the other does not have.
fn only_in_first(one: &[SetId], other: &[SetId]) -> impl Iterator<Item = SetId> {
    let mut other = other.iter().peekable();
    one.iter().copied().filter(move |id| {
        while other.next_if(|next| *next < id).is_some() {}
        other.peek() != Some(&id)
    })
}

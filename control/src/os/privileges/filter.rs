//! The system calls that a process may make, as a filter of the kernel (seccomp).
//!
//! There are two filters, of which the stricter result applies. The first is a list of allowed calls; any other fails
//! as on a kernel that does not have it (`ENOSYS`), so that a library that tries something newer falls back. The second
//! is a list of calls that only an intruder would make in this process, and ends the process at once.

use super::Role;
use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_XDP};
use libc::{CLONE_NEWNET, MNT_DETACH, MS_BIND, MS_REC, MS_SHARED, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use vswitch_core::config::services::PROCESS_USER;

/// For files, memory, threads, time, sockets and signals.
const ALLOWED: &[c_long] = &[
    // Files.
    libc::SYS_openat,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
    libc::SYS_getcwd,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_ioctl,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_linkat,
    libc::SYS_utimensat,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_get_mempolicy,
    // Threads. Without `clone3`, whose arguments a filter cannot inspect, libraries use `clone`.
    libc::SYS_clone,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_set_tid_address,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_membarrier,
    libc::SYS_getcpu,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Signals.
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_restart_syscall,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Events.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

/// The older names of the same, which not every architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_link,
    libc::SYS_arch_prctl,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_time,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_poll,
    libc::SYS_select,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// For making ports and namespaces, and for rings of the kernel.
const FORWARDING: &[c_long] = &[
    libc::SYS_fchownat,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// An argument of each of these by its place, and what it may be: network namespaces and no others; mounts that show what is
/// there at another place and no new ones; of `bpf` to make and fill a map, to load and attach a program, and to ask which
/// ones an interface has.
const FORWARDING_ARGUMENTS: &[(c_long, u8, &[i32])] = &[
    (libc::SYS_unshare, 0, &[CLONE_NEWNET]),
    (libc::SYS_setns, 1, &[CLONE_NEWNET]),
    (libc::SYS_mount, 3, &[MS_BIND as i32, (MS_BIND | MS_REC) as i32, (MS_SHARED | MS_REC) as i32]),
    (libc::SYS_umount2, 1, &[MNT_DETACH]),
    (libc::SYS_bpf, 0, &[0, 2, 5, 16, 28]),
];

/// For running another program. Some architectures lack `vfork` and `fork`.
const PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_wait4, libc::SYS_waitid];
#[cfg(target_arch = "x86_64")]
const PROGRAMS_OLD: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const PROGRAMS_OLD: &[c_long] = &[];

/// Calls that no process of Sluice makes, and an intruder might.
const FORBIDDEN: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_execveat,
    // The kernel and the machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    // Keys of the kernel.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // File systems, except for the two calls that keep a named namespace.
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // Users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// For entering the folder of the sockets, which the services process does before its own filter.
const FOLDERS: &[c_long] = &[libc::SYS_chdir];

/// For becoming another user. The supervisor's filter allows it because the services process inherits that, and does so.
const OTHER_USER: &[c_long] = &[libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups];

/// An argument of each of these by its place, and what it may be: nobody's user and group, and no other groups.
const OTHER_USER_ARGUMENTS: &[(c_long, u8, &[i32])] = &[
    (libc::SYS_setresuid, 0, &[PROCESS_USER as i32]),
    (libc::SYS_setresgid, 0, &[PROCESS_USER as i32]),
    (libc::SYS_setgroups, 0, &[0]),
];

#[cfg(target_arch = "x86_64")]
const FORBIDDEN_OLD: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_mknod,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_OLD: &[c_long] = &[];

/// Families of sockets that the control plane makes.
const FAMILIES: &[i32] = &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];
/// Families of sockets that the services process makes: of the planes, and for asking name servers.
const FAMILIES_SERVICES: &[i32] = &[AF_UNIX, AF_INET, AF_INET6];
/// Families of sockets that the forwarding plane makes.
const FAMILIES_FORWARDING: &[i32] = &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_XDP];

type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters the system calls of this process, of all its threads, and of every program it starts, permanently.
///
/// # Errors
/// The kernel does not support such filters, or has no room for them.
pub fn install(role: Role) -> Result<(), seccompiler::Error> {
    let allowed = program(allowed(role), SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)?;
    let forbidden = program(forbidden(role)?, SeccompAction::Allow, SeccompAction::KillProcess)?;
    seccompiler::apply_filter_all_threads(&forbidden)?;
    seccompiler::apply_filter_all_threads(&allowed)
}

fn program(
    rules: SyscallRules,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, others, listed, architecture)?.try_into()?)
}

fn listed<'a>(lists: impl IntoIterator<Item = &'a [c_long]>) -> SyscallRules {
    lists.into_iter().flatten().map(|call| (*call, Vec::new())).collect()
}

fn allowed(role: Role) -> SyscallRules {
    let own: &[&[c_long]] = match role {
        // A filter also applies to the programs that a process starts.
        Role::Supervisor => &[PROGRAMS, PROGRAMS_OLD, FORWARDING, OTHER_USER, FOLDERS],
        Role::Forwarding => &[FORWARDING],
        Role::Control | Role::Services => &[],
    };
    listed([ALLOWED, ALLOWED_OLD].into_iter().chain(own.iter().copied()))
}

fn forbidden(role: Role) -> Result<SyscallRules, seccompiler::Error> {
    let own: &[&[c_long]] = match role {
        Role::Supervisor => &[],
        Role::Forwarding => &[PROGRAMS, PROGRAMS_OLD, OTHER_USER],
        Role::Control | Role::Services => &[PROGRAMS, PROGRAMS_OLD, FORWARDING, OTHER_USER],
    };
    let mut rules = listed([FORBIDDEN, FORBIDDEN_OLD].into_iter().chain(own.iter().copied()));
    let families = match role {
        Role::Supervisor | Role::Forwarding => FAMILIES_FORWARDING,
        Role::Control => FAMILIES,
        Role::Services => FAMILIES_SERVICES,
    };
    let arguments: &[&[(c_long, u8, &[i32])]] = match role {
        Role::Supervisor => &[FORWARDING_ARGUMENTS, OTHER_USER_ARGUMENTS],
        Role::Forwarding => &[FORWARDING_ARGUMENTS],
        Role::Control | Role::Services => &[],
    };
    rules.insert(libc::SYS_socket, vec![none_of(0, families)?]);
    rules.insert(libc::SYS_socketpair, vec![none_of(0, &[AF_UNIX])?]);
    for (call, argument, values) in arguments.iter().copied().flatten() {
        rules.insert(*call, vec![none_of(*argument, values)?]);
    }
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let new_namespaces: Result<Vec<_>, _> = namespaces.into_iter().map(|flag| with_flag(0, flag)).collect();
    rules.insert(libc::SYS_clone, new_namespaces?);
    Ok(rules)
}

/// Matches calls whose argument is none of these.
fn none_of(argument: u8, values: &[i32]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions = values.iter().map(|value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(value.cast_unsigned()))
    });
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

/// Matches calls whose argument has the flag.
fn with_flag(argument: u8, flag: i32) -> Result<SeccompRule, seccompiler::Error> {
    let flag = u64::from(flag.cast_unsigned());
    let has = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
    Ok(SeccompRule::new(vec![has])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_forbidden() {
        for role in [Role::Supervisor, Role::Forwarding, Role::Control, Role::Services] {
            let (allowed, forbidden) = (allowed(role), forbidden(role).unwrap());
            for (call, rules) in forbidden {
                // A call that ends the process for some arguments is allowed for others.
                assert_eq!(allowed.contains_key(&call), !rules.is_empty(), "{role:?}: call {call}");
            }
        }
    }

    #[test]
    fn what_a_plane_may_call_its_supervisor_may() {
        let supervisor = (allowed(Role::Supervisor), forbidden(Role::Supervisor).unwrap());
        for role in [Role::Forwarding, Role::Control, Role::Services] {
            for call in allowed(role).keys() {
                assert!(supervisor.0.contains_key(call), "{role:?}: call {call}");
                assert!(supervisor.1.get(call).is_none_or(|rules| !rules.is_empty()), "{role:?}: call {call}");
            }
        }
    }
}

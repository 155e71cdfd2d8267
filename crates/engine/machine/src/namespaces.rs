//! Which namespaces the runtime's inner process gets, and what to tell the person where the kernel
//! refuses.
//!
//! As root no user namespace is needed. As anybody else one is made that maps that one user to user
//! 0 inside; with it come the capabilities over the other namespaces and over nothing outside of
//! them.

use std::ffi::CString;
use std::io;

use crate::error::Error;
use crate::names::NOBODY;
use inject::PROXY_ID;

/// Who the runtime is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Root with the right to make namespaces: users are told apart inside.
    Root,
    /// Anybody else: one user is mapped.
    User,
}

/// The bit of CAP_SYS_ADMIN and of CAP_NET_ADMIN in `CapEff`.
const NEEDED_CAPABILITIES: u64 = (1 << 21) | (1 << 12);

/// Users that containers run as where users are told apart.
const NEEDED_USERS: [u32; 2] = [PROXY_ID, NOBODY];

/// What this process may do, from its user id, the `CapEff` line of `/proc/self/status` and the
/// text of `/proc/self/uid_map`: the root of somebody else's user namespace that knows no other
/// user is nobody special.
pub fn privilege(effective_user: u32, status: &str, map: &str) -> Privilege {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let capable = effective_user == 0 && effective & NEEDED_CAPABILITIES == NEEDED_CAPABILITIES;
    if capable && NEEDED_USERS.iter().all(|user| is_mapped(*user, map)) {
        Privilege::Root
    } else {
        Privilege::User
    }
}

/// Lines of an identity map are `first inside, first outside, count`.
fn is_mapped(user: u32, map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) => {
                (first..first.saturating_add(count)).contains(&user.into())
            }
            _ => false,
        }
    })
}

/// The flags of `clone` for the inner process.
pub fn flags(privilege: Privilege) -> libc::c_int {
    let always = libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    match privilege {
        Privilege::Root => always,
        Privilege::User => always | libc::CLONE_NEWUSER,
    }
}

/// The identity maps that the child writes about itself.
pub fn identity_maps(privilege: Privilege, user: u32, group: u32) -> Vec<(CString, Vec<u8>)> {
    match privilege {
        Privilege::Root => Vec::new(),
        Privilege::User => vec![
            (c"/proc/self/setgroups".into(), b"deny".to_vec()),
            (
                c"/proc/self/uid_map".into(),
                format!("0 {user} 1").into_bytes(),
            ),
            (
                c"/proc/self/gid_map".into(),
                format!("0 {group} 1").into_bytes(),
            ),
        ],
    }
}

/// Settings of this machine that decide about user namespaces; `None` where the kernel has no such
/// setting.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// `kernel.unprivileged_userns_clone` (Debian).
    pub unprivileged_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu).
    pub apparmor_restricts: Option<u64>,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
}

impl Settings {
    /// Reads them from `/proc/sys`.
    pub fn read() -> Self {
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        }
    }
}

/// Says which setting is the likely cause of a refusal, and the command that changes it.
pub fn explain(cause: &io::Error, settings: &Settings) -> Error {
    let refused = |why: &str, remedy: &str| Error::NamespacesRefused {
        why: format!("{why} (the kernel said: {cause})"),
        remedy: remedy.into(),
    };
    if settings.max_user_namespaces == Some(0) {
        return refused(
            "user.max_user_namespaces is 0",
            "sudo sysctl -w user.max_user_namespaces=15000",
        );
    }
    if settings.unprivileged_clone == Some(0) {
        return refused(
            "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        );
    }
    if settings.apparmor_restricts.is_some_and(|value| value != 0) {
        return refused(
            "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, \
             or an AppArmor profile for tanbark with the rule `userns,`, or run it as root",
        );
    }
    if cause.raw_os_error() == Some(libc::ENOSPC) {
        return refused(
            "user.max_user_namespaces is used up",
            "sudo sysctl -w user.max_user_namespaces=15000",
        );
    }
    refused(
        "a security module, a container engine's seccomp filter or the kernel's configuration forbids it",
        "run it as root, or in a container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_needs_both_capabilities_and_the_users_of_containers() {
        let all = "         0          0 4294967295\n";
        let capable = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_eq!(privilege(0, capable, all), Privilege::Root);
        assert_eq!(
            privilege(0, "CapEff:\t00000000a80425fb\n", all),
            Privilege::User
        );
        assert_eq!(privilege(1000, capable, all), Privilege::User);
        assert_eq!(privilege(0, capable, "0 1000 1\n"), Privilege::User);
        let container = "0 1000 1\n1 100000 65536\n";
        assert_eq!(privilege(0, capable, container), Privilege::Root);
    }

    #[test]
    fn a_refusal_names_the_setting_that_causes_it() {
        let cause = io::Error::from_raw_os_error(libc::EPERM);
        let text = |settings| explain(&cause, &settings).to_string();
        assert!(
            text(Settings {
                max_user_namespaces: Some(0),
                ..Settings::default()
            })
            .contains("user.max_user_namespaces=15000")
        );
        assert!(
            text(Settings {
                unprivileged_clone: Some(0),
                ..Settings::default()
            })
            .contains("unprivileged_userns_clone=1")
        );
        assert!(
            text(Settings {
                apparmor_restricts: Some(1),
                ..Settings::default()
            })
            .contains("apparmor_restrict_unprivileged_userns=0")
        );
        assert!(text(Settings::default()).contains("seccomp"));
    }
}

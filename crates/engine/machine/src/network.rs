//! The machine's network inside its namespaces: one bridge, a namespace and a veth for each pod,
//! the tables of rules.
//!
//! A pod's address is a /32 with a default route over the bridge's address, so every packet is
//! routed by the runtime's own namespace, where Service addresses are translated; source addresses
//! stay. Namespaces are held by open descriptors only: they go with the runtime.
//!
//! All functions that change the kernel's state block; call them off the async workers.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use parking_lot::Mutex;

use crate::error::{Context, Error, Result};
use crate::names::BRIDGE;
use crate::processes::Processes;
use crate::rules::Firewall;
use crate::rules::services::SERVICE_RANGE;

/// The bridge's address: every pod's gateway, and the source of published traffic.
pub const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The cluster's DNS server.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const POD_PREFIX: [u8; 2] = [10, 244];
/// Pods at the same time; the rest of 10.244.0.0/16 gives released addresses time to be forgotten.
const MAX_PODS: usize = 16_384;

/// The network of this machine.
#[derive(Debug)]
pub struct Network {
    processes: Arc<Processes>,
    firewall: Firewall,
    addresses: Mutex<Addresses>,
}

/// A pod's network namespace.
#[derive(Debug)]
pub struct PodNetwork {
    /// Keeps the namespace alive.
    pub namespace: OwnedFd,
    /// The pod's address.
    pub address: Ipv4Addr,
    interface: String,
}

/// Addresses in use, and where to look next, so that a released one is not given out again at once.
#[derive(Debug, Default)]
struct Addresses {
    used: BTreeSet<u16>,
    last: u16,
}

impl Addresses {
    fn take(&mut self) -> Option<Ipv4Addr> {
        if self.used.len() >= MAX_PODS {
            return None;
        }
        loop {
            self.last = self.last.checked_add(1).unwrap_or(2).max(2);
            let [high, low] = self.last.to_be_bytes();
            if low != 0 && low != 255 && self.used.insert(self.last) {
                return Some(Ipv4Addr::new(POD_PREFIX[0], POD_PREFIX[1], high, low));
            }
        }
    }

    fn give_back(&mut self, address: Ipv4Addr) {
        let [_, _, high, low] = address.octets();
        self.used.remove(&u16::from_be_bytes([high, low]));
    }
}

impl Network {
    /// Makes the bridge in the calling thread's namespace, which must be the runtime's own.
    pub fn create(processes: Arc<Processes>, firewall: Firewall) -> Result<Self> {
        let batch = format!(
            "link set lo up\n\
             link add {BRIDGE} address 02:42:0a:f4:00:01 type bridge\n\
             addr add {BRIDGE_ADDRESS}/16 dev {BRIDGE}\n\
             addr add {DNS_ADDRESS}/32 dev {BRIDGE}\n\
             link set {BRIDGE} up\n\
             route add {SERVICE_RANGE} dev {BRIDGE}\n"
        );
        processes.run("ip", &["-batch", "-"], &batch)?;
        for (setting, value) in [
            ("ip_forward", "1"),
            ("conf/all/send_redirects", "0"),
            ("conf/default/send_redirects", "0"),
            (&format!("conf/{BRIDGE}/send_redirects"), "0"),
            ("conf/all/rp_filter", "0"),
            // A Service without endpoints and an unreachable network are told each time, not once a
            // second.
            ("icmp_ratelimit", "0"),
        ] {
            write_setting(setting, value)?;
        }
        // Where the module is there, translated packets would be bridged and not routed, and a pod
        // could not reach itself.
        let bridged = std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
        if bridged.exists() {
            std::fs::write(bridged, "0")
                .context(|| "set net/bridge/bridge-nf-call-iptables to 0".into())?;
        }
        let network = Self {
            processes,
            firewall,
            addresses: Mutex::default(),
        };
        network.publish_services(&crate::rules::services::rules(&[], None, firewall))?;
        Ok(network)
    }

    /// The program that takes rules.
    pub fn firewall(&self) -> Firewall {
        self.firewall
    }

    /// Puts the table of Services in place, at once.
    pub fn publish_services(&self, rules: &str) -> Result<()> {
        self.apply_rules(rules)
    }

    fn apply_rules(&self, rules: &str) -> Result<()> {
        match self.firewall {
            Firewall::Nft => self.processes.run("nft", &["-f", "-"], rules)?,
            Firewall::Iptables => self.processes.run("iptables-restore", &[], rules)?,
        };
        Ok(())
    }

    /// Makes a pod's namespace with its address and routes, and puts `rules` in place there before
    /// anything can run in it.
    pub fn create_pod(&self, rules: Option<&str>) -> Result<PodNetwork> {
        let address = self.addresses.lock().take().ok_or_else(|| {
            Error::Configuration(format!("more than {MAX_PODS} pods at the same time"))
        })?;
        let made = self.create_pod_at(address, rules);
        if made.is_err() {
            self.addresses.lock().give_back(address);
        }
        made
    }

    fn create_pod_at(&self, address: Ipv4Addr, rules: Option<&str>) -> Result<PodNetwork> {
        let [_, _, high, low] = address.octets();
        let interface = format!("pod{high}-{low}");
        let inside = format!(
            "link set lo up\n\
             link add eth0 type veth peer name {interface} netns 1\n\
             addr add {address}/32 dev eth0\n\
             link set eth0 up\n\
             route add {BRIDGE_ADDRESS} dev eth0 scope link\n\
             route add default via {BRIDGE_ADDRESS} dev eth0\n"
        );
        let namespace = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context(|| "make a network namespace".into())?;
            let namespace = File::open("/proc/thread-self/ns/net")
                .context(|| "open a network namespace".into())?;
            self.processes.run("ip", &["-batch", "-"], &inside)?;
            write_setting("ip_unprivileged_port_start", "0")?;
            write_setting("ping_group_range", "0 2147483647")
                .or_else(|_| write_setting("ping_group_range", "0 0"))?;
            if let Some(rules) = rules {
                self.apply_rules(rules)?;
            }
            Ok(OwnedFd::from(namespace))
        })?;
        let outside = format!("link set {interface} master {BRIDGE} up\n");
        self.processes.run("ip", &["-batch", "-"], &outside)?;
        Ok(PodNetwork {
            namespace,
            address,
            interface,
        })
    }

    /// Removes a pod's interface and gives its address back.
    pub fn remove_pod(&self, pod: &PodNetwork) {
        if let Err(error) = self
            .processes
            .run("ip", &["link", "del", &pod.interface], "")
        {
            tracing::debug!(%error, interface = pod.interface, "the interface is gone already");
        }
        self.addresses.lock().give_back(pod.address);
    }
}

/// Finds the program for rules, `nft` first, and `ip`, among the folders of a search path.
///
/// # Errors
/// [`Error::MissingProgram`] with the package to install.
pub fn find_programs(search_path: &str) -> Result<Firewall> {
    let exists = |program: &str| {
        search_path
            .split(':')
            .any(|folder| std::path::Path::new(folder).join(program).is_file())
    };
    if !exists("ip") {
        return Err(Error::MissingProgram {
            program: "ip",
            package: "iproute2",
        });
    }
    match (exists("nft"), exists("iptables-restore")) {
        (true, _) => Ok(Firewall::Nft),
        (false, true) => Ok(Firewall::Iptables),
        (false, false) => Err(Error::MissingProgram {
            program: "nft` or `iptables-restore",
            package: "nftables",
        }),
    }
}

/// Runs something on a thread of its own, whose namespaces may then change.
pub fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        // task: a thread that may change its namespaces; joined by its caller
        std::thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)
            .context(|| "start a thread".into())?
            .join()
            .unwrap_or_else(|_| Err(Error::Peer("a thread ended unexpectedly".into())))
    })
}

/// Runs something inside a network namespace.
pub fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .context(|| "enter a network namespace".into())?;
        work()
    })
}

/// A TCP socket that was made inside a pod's namespace and is bound to an address there; it is not
/// connected yet.
///
/// From 127.0.0.6 a connection to the pod's own address is one that redirection leaves alone, as
/// the sidecar's own to its application.
pub fn socket_inside(pod: &PodNetwork, source: Ipv4Addr) -> Result<tokio::net::TcpSocket> {
    let socket = inside(pod.namespace.as_fd(), || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .context(|| "open a socket".into())?;
        socket
            .set_nonblocking(true)
            .context(|| "open a socket".into())?;
        socket
            .bind(&SocketAddr::from((source, 0)).into())
            .context(|| "bind a socket".into())?;
        Ok(socket)
    })?;
    Ok(tokio::net::TcpSocket::from_std_stream(socket.into()))
}

fn write_setting(name: &str, value: &str) -> Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
        .context(|| format!("set net/ipv4/{name} to {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_reused_at_once_and_skip_network_and_broadcast() {
        let mut addresses = Addresses::default();
        let first = addresses.take().expect("an address");
        assert_eq!(first, Ipv4Addr::new(10, 244, 0, 2));
        addresses.give_back(first);
        assert_eq!(addresses.take(), Some(Ipv4Addr::new(10, 244, 0, 3)));
        for _ in 0..600 {
            let [_, _, _, low] = addresses.take().expect("an address").octets();
            assert!(low != 0 && low != 255);
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        assert!(
            find_programs(&path)
                .expect_err("no ip")
                .to_string()
                .contains("apt install iproute2")
        );
        std::fs::write(folder.path().join("ip"), "").expect("write");
        assert!(
            find_programs(&path)
                .expect_err("no nft")
                .to_string()
                .contains("apt install nftables")
        );
        std::fs::write(folder.path().join("iptables-restore"), "").expect("write");
        assert_eq!(find_programs(&path).expect("found"), Firewall::Iptables);
    }
}

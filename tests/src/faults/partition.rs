//! A network that can be cut, of network namespaces.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, thread};

/// Hosts (network namespaces) on one switch (a bridge in a namespace of its own). It is invisible outside and deleted when
/// this is dropped; end the processes in it before.
///
/// A cut loses packets silently: no reset, no "unreachable". For that, every host has the others' hardware addresses in
/// its neighbour table: an unanswered ARP request would be an error within seconds.
#[derive(Debug)]
pub struct Partition {
    /// Holds the bridge and one end of every cable, and is dropped first: the cables go with it, even
    /// if a process still lives in a host.
    hub: Namespace,
    hosts: Vec<Namespace>,
}

impl Partition {
    /// Makes a network of `hosts` hosts, at most 250.
    ///
    /// # Errors
    /// What did not work, in the words of `ip`.
    pub fn new(hosts: usize) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        assert!(hosts <= 250, "there are addresses for 250 hosts");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("fovea-test-{}-{number}", std::process::id());
        let mut network = Self {
            hub: Namespace::new(format!("{prefix}-hub"))?,
            hosts: Vec::new(),
        };
        network
            .hub
            .batch("link add hub type bridge\nlink set hub up\n")?;
        for host in 0..hosts {
            let namespace = Namespace::new(format!("{prefix}-{host}"))?;
            network.hub.batch(&format!(
                "link add {port} type veth peer name eth0 address {} netns {}\n\
                 link set {port} master hub up\n",
                hardware(host),
                namespace.name,
                port = port(host),
            ))?;
            let mut script = format!(
                "link set lo up\naddress add {}/24 dev eth0\nlink set eth0 up\n",
                address(host)
            );
            for other in (0..hosts).filter(|other| *other != host) {
                script += &format!(
                    "neighbour add {} lladdr {} dev eth0 nud permanent\n",
                    address(other),
                    hardware(other)
                );
            }
            namespace.batch(&script)?;
            network.hosts.push(namespace);
        }
        Ok(network)
    }

    /// The address of a host, which only the others can reach.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        assert!(host < self.hosts.len(), "no host {host}");
        address(host)
    }

    /// The same command, to run on a host. `ip netns exec` becomes the program, so the process id is the
    /// program's.
    pub fn command(&self, host: usize, command: &Command) -> Command {
        let mut wrapped = Command::new("ip");
        wrapped
            .args(["netns", "exec", &self.hosts[host].name])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
    }

    /// Calls `work` on a thread of this process that is on a host: sockets made there, also by a runtime and
    /// threads started there, are the host's, and remain so wherever they are used.
    ///
    /// # Panics
    /// If `work` does, or the host cannot be entered.
    pub fn inside<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let name = &self.hosts[host].name;
        let entered = move || {
            let path = format!("/run/netns/{name}");
            let namespace = File::open(path).expect("a host's namespace is there");
            // Safety: an open descriptor; only this thread changes its network.
            let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "{name}: {}", io::Error::last_os_error());
            work()
        };
        thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Pulls a host's cable out of the switch.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn cut(&self, host: usize) {
        self.set(host, "down");
    }

    /// Puts the cable back.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn heal(&self, host: usize) {
        self.set(host, "up");
    }

    fn set(&self, host: usize, state: &str) {
        let script = format!("link set dev {} {state}\n", port(host));
        let result = self.hub.batch(&script);
        result.unwrap_or_else(|e| panic!("host {host} {state}: {e}"));
    }
}

fn port(host: usize) -> String {
    format!("port{host}")
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host as u8 + 1)
}

/// A locally administered address.
fn hardware(host: usize) -> String {
    format!("02:00:00:00:00:{:02x}", host + 1)
}

/// A network namespace, deleted when dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: String) -> Result<Self, String> {
        ip(&["netns", "add", &name], "")?;
        Ok(Self { name })
    }

    /// Runs many commands of `ip` in one process.
    fn batch(&self, script: &str) -> Result<(), String> {
        ip(&["-n", &self.name, "-batch", "-"], script)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(e) = ip(&["netns", "delete", &self.name], "") {
            eprintln!("{}: not deleted: {e}", self.name);
        }
    }
}

fn ip(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|e| format!("`ip` (of iproute2) does not start: {e}"))?;
    // An `ip` that has already ended with an error does not read; its error says more than ours.
    let _ = child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes());
    let output = child
        .wait_with_output()
        .map_err(|e| format!("`ip` cannot be waited for: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.trim()))
}

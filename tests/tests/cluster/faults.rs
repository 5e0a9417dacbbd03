//! The faults themselves, tried on helper processes: this program again, with its role in an environment variable.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fovea_tests::Process;
use fovea_tests::faults::{self, Partition, SmallDisk, Stall, inspect};

const DEADLINE: Duration = Duration::from_secs(30);
/// The role of a helper process. What it exchanges with its test lies in the folder `FOLDER`.
const ROLE: &str = "FAULTS_HELPER";
const FOLDER: &str = "FAULTS_FOLDER";
const PORT: u16 = 4000;

/// Not a test: what a helper process runs. Without a role it does nothing.
#[test]
fn helper() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = std::env::var(FOLDER).expect("helpers get a folder");
    let folder = Path::new(&folder);
    match role.as_str() {
        "counters" => count(folder),
        "keeper" => keep(folder),
        "echo" => echo(folder),
        "parent" => have_a_child(folder),
        other => panic!("no such role: {other}"),
    }
}

fn command(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
    command
        .args(["--exact", "faults::helper", "--nocapture"])
        .env(ROLE, role)
        .env(FOLDER, folder);
    command
}

fn start(role: &str, folder: &Path) -> Process {
    Process::start(command(role, folder), folder.join("log"))
}

/// Waits until a condition holds that no event tells of.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Appears with its whole content at once, so that a reader may wait for it.
fn say(file: &Path, text: &str) {
    let whole = file.with_extension("new");
    fs::write(&whole, text).expect("the folder is there");
    fs::rename(whole, file).expect("the folder is there");
}

fn hear(file: &Path) -> String {
    wait_until(&file.display().to_string(), || file.exists());
    fs::read_to_string(file).expect("it is there")
}

/// Two threads that each make a file longer and longer.
fn count(folder: &Path) {
    let counter = |name: &'static str| {
        let path = folder.join(name);
        let work = move || {
            let mut file = File::create(path).expect("the folder is there");
            // The test is long over before this is.
            for _ in 0..1_000_000 {
                file.write_all(b".").expect("the folder is there");
                thread::sleep(Duration::from_millis(1));
            }
        };
        thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .expect("a thread starts")
    };
    for thread in [counter("device"), counter("other")] {
        thread.join().expect("a counter does not panic");
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.len())
}

#[test]
fn a_stalled_thread_stands_while_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (device, other) = (dir.path().join("device"), dir.path().join("other"));
    let further = |path: &Path, by: u64| {
        let goal = length(path) + by;
        wait_until("a counter goes on", || length(path) >= goal);
    };
    let mut process = start("counters", dir.path());
    further(&device, 10);
    further(&other, 10);

    let stall = Stall::new(process.pid(), "device").expect("it can be traced");
    let stood_at = length(&device);
    further(&other, 50);
    assert_eq!(length(&device), stood_at);
    // All of it is stopped and goes on; the one thread remains where it is.
    assert!(process.stop());
    assert!(process.cont());
    further(&other, 50);
    assert_eq!(length(&device), stood_at);
    stall.release();
    further(&device, 10);
    further(&other, 10);

    let missing = Stall::new(process.pid(), "nobody").expect_err("there is none");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("\"device\""), "{missing}");

    // Killed while it is held.
    let stall = Stall::new(process.pid(), "device").expect("it can be traced");
    assert!(process.signal(libc::SIGKILL));
    process.wait(DEADLINE);
    stall.release();
    assert!(Stall::new(process.pid(), "device").is_err());
}

#[test]
fn a_process_that_has_ended_can_be_told_anything() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut process = start("counters", dir.path());
    assert!(process.is_running());
    assert!(process.stop());
    assert!(process.is_running());
    let status = process.kill();
    assert!(!status.success());
    assert!(!process.is_running());
    assert!(!process.signal(libc::SIGTERM) && !process.stop() && !process.cont());
    assert_eq!(process.kill(), status);
    assert_eq!(process.wait(Duration::ZERO), status);
}

const PATTERN: usize = 64;

/// Bytes that stand nowhere unless someone computes them.
fn pattern(place: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in place {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
}

/// Holds the pattern in three places, and says how they look when asked to.
fn keep(folder: &Path) {
    const PLACES: [usize; 3] = [5, (16 << 20) - 30, (40 << 20) - PATTERN];
    let mut memory = vec![0; 40 << 20];
    for place in PLACES {
        pattern(&mut memory[place..place + PATTERN]);
    }
    let memory = std::hint::black_box(memory);
    say(&folder.join("ready"), "");
    hear(&folder.join("question"));
    let mut expected = [0; PATTERN];
    pattern(&mut expected);
    let mut answer = String::new();
    for place in PLACES {
        let differing = (0..PATTERN)
            .map(|i| (i, memory[place + i] ^ expected[i]))
            .filter(|(_, bits)| *bits != 0);
        answer += &format!("{:?}\n", differing.collect::<Vec<_>>());
    }
    say(&folder.join("answer"), &answer);
}

#[test]
fn a_bit_is_flipped_in_every_copy() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut process = start("keeper", dir.path());
    hear(&dir.path().join("ready"));
    let mut sought = [0; PATTERN];
    pattern(&mut sought);
    let flipped = faults::flip_bit(process.pid(), &sought).expect("it is our child");
    assert_eq!(flipped, 3);
    assert_eq!(
        faults::flip_bit(process.pid(), &sought).expect("it is our child"),
        0
    );
    assert!(
        faults::flip_bit(process.pid(), &sought[..31]).is_err(),
        "too short"
    );
    say(&dir.path().join("question"), "");
    assert_eq!(
        hear(&dir.path().join("answer")),
        "[(0, 1)]\n[(0, 1)]\n[(0, 1)]\n"
    );
    assert!(process.wait(DEADLINE).success());
    assert!(faults::flip_bit(process.pid(), &sought).is_err(), "gone");
}

/// Sends back what it gets, on every connection.
fn echo(folder: &Path) {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("the port is free on this host");
    say(&folder.join("ready"), "");
    for stream in listener.incoming() {
        thread::spawn(move || {
            let stream = stream.expect("a connection");
            io::copy(&mut &stream, &mut &stream)
        });
    }
}

#[cfg_attr(not(has_netns), ignore = "needs network namespaces: root and iproute2")]
#[test]
fn a_cut_loses_packets_silently() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let network = Partition::new(3).expect("a network");
    let command = network.command(0, &command("echo", dir.path()));
    let mut process = Process::start(command, dir.path().join("log"));
    hear(&dir.path().join("ready"));
    let server = SocketAddr::from((network.address(0), PORT));
    let connect = |from: usize, wait: Duration| {
        network.inside(from, || TcpStream::connect_timeout(&server, wait))
    };
    let ask = |mut stream: &TcpStream, wait: Duration| {
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])
    };
    let silent = |result: io::Result<()>| {
        let kind = result.expect_err("nothing gets through").kind();
        let silent = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        assert!(silent.contains(&kind), "{kind}");
    };
    let (one, two) = (connect(1, DEADLINE), connect(2, DEADLINE));
    let (one, two) = (one.expect("connected"), two.expect("connected"));
    ask(&one, DEADLINE).expect("echo");
    ask(&two, DEADLINE).expect("echo");

    network.cut(1);
    silent(ask(&one, Duration::from_millis(300)));
    silent(connect(1, Duration::from_millis(300)).map(drop));
    ask(&two, DEADLINE).expect("the others go on");
    network.heal(1);
    // What was sent during the cut arrives late.
    one.set_read_timeout(Some(DEADLINE))
        .expect("an open socket");
    (&one).read_exact(&mut [0]).expect("echo");
    ask(&one, DEADLINE).expect("echo");

    network.cut(0);
    silent(ask(&one, Duration::from_millis(300)));
    silent(ask(&two, Duration::from_millis(300)));
    assert!(process.is_running(), "{}", process.log());
    process.kill();
    drop(network);
    let prefix = format!("fovea-test-{}-", std::process::id());
    let left = fs::read_dir("/run/netns").map_or_else(
        |_| Vec::new(),
        |names| {
            names
                .filter_map(|name| name.ok()?.file_name().into_string().ok())
                .filter(|name| name.starts_with(&prefix))
                .collect()
        },
    );
    assert!(left.is_empty(), "{left:?}");
}

#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
#[test]
fn a_small_disk_fills_up_and_is_freed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = SmallDisk::mount(dir.path(), 1 << 20).expect("a tmpfs");
    let file = dir.path().join("file");
    fs::write(&file, [1; 10_000]).expect("there is room");
    let taken = disk.fill().expect("only full");
    assert!((900_000..1 << 20).contains(&taken), "{taken}");
    let full = fs::write(dir.path().join("more"), [1; 10_000]).expect_err("full");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.fill().expect("only full"), 0);
    disk.free().expect("removed");
    disk.free().expect("nothing to do");
    fs::write(&file, [1; 100_000]).expect("there is room again");
    drop(disk);
    assert!(!file.exists(), "still mounted");
}

#[test]
fn a_corrupt_file_differs_in_one_bit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("file");
    fs::write(&path, [7; 1001]).expect("there is room");
    faults::corrupt_file(&path).expect("there is a middle");
    let bytes = fs::read(&path).expect("it is there");
    assert_eq!(bytes.len(), 1001);
    let bits = bytes.iter().map(|byte| (byte ^ 7).count_ones());
    assert_eq!(bits.sum::<u32>(), 1);
    fs::write(&path, []).expect("there is room");
    assert!(faults::corrupt_file(&path).is_err(), "no middle");
}

/// Starts a child, says its id, and ends only by being killed.
fn have_a_child(folder: &Path) {
    let below = folder.join("child");
    fs::create_dir(&below).expect("the folder is there");
    let child = Process::start(command("counters", &below), below.join("log"));
    say(&folder.join("pid"), &child.pid().to_string());
    // Never asked.
    hear(&folder.join("question"));
}

#[test]
fn processes_are_found_by_parent_and_environment() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let marker = format!("inspect-{}", std::process::id());
    let mut command = command("parent", dir.path());
    command.env("FAULTS_MARKER", &marker);
    let marker = format!("FAULTS_MARKER={marker}");
    let mut parent = Process::start(command, dir.path().join("log"));
    let child: u32 = hear(&dir.path().join("pid")).parse().expect("a number");
    assert!(inspect::children_of(std::process::id()).contains(&parent.pid()));
    assert_eq!(inspect::children_of(parent.pid()), [child]);
    let mut both = inspect::processes_with_env(&marker);
    both.sort_unstable();
    let mut expected = [parent.pid(), child];
    expected.sort_unstable();
    assert_eq!(both, expected);
    assert!(inspect::rss_kb(child).expect("it runs") > 100);
    let counter = fs::canonicalize(dir.path().join("child/log")).expect("it is there");
    assert!(
        inspect::open_files(child)
            .expect("it runs")
            .contains(&counter)
    );

    // The orphan is found, although its parent is gone.
    parent.kill();
    assert!(inspect::children_of(parent.pid()).is_empty());
    assert_eq!(inspect::processes_with_env(&marker), [child]);
    // Safety: a plain system call; the process is a counter that only this test knows of.
    unsafe { libc::kill(child as i32, libc::SIGKILL) };
    wait_until("the orphan ends", || {
        inspect::processes_with_env(&marker).is_empty()
    });
    assert_eq!(inspect::rss_kb(parent.pid()), None);
    assert_eq!(inspect::open_files(parent.pid()), None);
}

#[test]
fn temporary_files_are_found() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = dir.path().join("data");
    assert!(inspect::temporary_files(&root).is_ok_and(|found| found.is_empty()));
    let names = [
        "datasets/tmp-1",
        "checkpoints/r/tmp-2-x",
        "packs/a.pack.tmp-7-0",
    ];
    for name in names
        .iter()
        .chain(&["journal.db", "packs/a.pack", "packs/tmp"])
    {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("there is room");
        fs::write(path, "").expect("there is room");
    }
    let found = inspect::temporary_files(&root).expect("it can be read");
    let mut expected = names.map(|name| root.join(name));
    expected.sort();
    assert_eq!(found, expected);
}

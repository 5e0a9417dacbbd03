//! Torn writes never show: a coordinator's writing is killed at every point at which it changes a file.
//!
//! The test runs a child, which is this test binary again, under ptrace. The child performs [`STORY`]
//! with the real journal and the real checkpoint store and acknowledges each act when it is done. The
//! parent kills it on entry to its N-th system call that changes files, for every N, and once more
//! after half of the bytes when the call is a write. Then it starts on what is left as a coordinator
//! does, and what it finds must be the acknowledged acts, perhaps with the one that was under way.
//!
//! A kill is not a power failure: what the kernel took stays. So this tests the order of writes and
//! their being all or nothing, but not that `fsync` is called.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Error, Read};
use std::mem;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::ids::{DatasetName, RunId};
use fovea_core::run::{Extent, Phase, Run};
use libc::{c_int, c_long, pid_t};
use sha2::{Digest, Sha256};

use crate::checkpoints::{self, AssemblyFile};
use crate::data_dir::{DataDir, TEMPORARY};
use crate::legacy_journal::Journal;

/// Names the data folder to the child. Where it is not set, [`child`] has nothing to do.
const FOLDER: &str = "FOVEA_TORN_FOLDER";

/// How long all the kills may take. When they would take longer, only some of them are done.
const BUDGET: Duration = Duration::from_secs(60);

/// What a stop at a system call looks like, with `PTRACE_O_TRACESYSGOOD`.
const CALL: c_int = libc::SIGTRAP | 0x80;

/// Elements of a state: enough for several pages.
const ELEMENTS: u64 = 3000;
/// Bytes of a slice of it.
const SLICE: usize = 5000;

/// Something that the child does and acknowledges.
#[derive(Debug)]
enum Act {
    /// The dataset gets this digest.
    Dataset(&'static str),
    /// The run changes, and lists these checkpoints (step, generation) from now on: new ones are stored
    /// before it is journalled, replaced ones are removed after the acknowledgement.
    Run(&'static [(u64, u64)]),
    /// The journal is closed, which moves its log into the database, and opened again.
    Reopen,
}

const STORY: &[Act] = &[
    Act::Dataset("first"),
    Act::Run(&[]),
    Act::Run(&[]),
    Act::Run(&[(10, 1)]),
    Act::Run(&[(10, 1), (20, 1)]),
    Act::Run(&[(10, 1), (20, 1), (30, 1)]),
    Act::Reopen,
    Act::Dataset("second"),
    Act::Run(&[(10, 1), (20, 2), (30, 1)]),
    Act::Run(&[(10, 1), (20, 2), (30, 1)]),
    Act::Reopen,
];

#[test]
fn a_kill_at_any_write_leaves_whole_acts() {
    let begun = Instant::now();
    let root = tempfile::tempdir().unwrap();
    let whole = perform(&root.path().join("data"), None);
    let refused = format!("refused {}", libc::EPERM);
    if whole.lines == [refused] {
        println!("nothing was tested: this system permits no ptrace");
        return;
    }
    assert!(libc::WIFEXITED(whole.status) && libc::WEXITSTATUS(whole.status) == 0);
    assert_eq!(whole.lines.len(), STORY.len(), "{:?}", whole.lines);
    check(&root.path().join("data"), whole.lines.len(), "no kill");

    let mut kills: Vec<Kill> = Vec::new();
    for (at, point) in whole.points.iter().enumerate() {
        kills.push(Kill { at, half: false });
        if point.bytes > 1 {
            kills.push(Kill { at, half: true });
        }
    }
    // A killed child does half of the story on average, so this is more than enough.
    let all = begun.elapsed() * kills.len() as u32;
    let every = all.as_millis().div_ceil(BUDGET.as_millis()).max(1) as usize;
    println!(
        "{} calls change files; {} kills, of which every {every} is done",
        whole.points.len(),
        kills.len()
    );
    for kill in kills.iter().step_by(every) {
        let point = &whole.points[kill.at];
        let about = format!("kill {} {kill:?}, {} {}", kill.at, point.call, point.file);
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let outcome = perform(&data, Some(kill));
        assert!(
            libc::WIFSIGNALED(outcome.status) && libc::WTERMSIG(outcome.status) == libc::SIGKILL,
            "{about}: was not killed: {:?}",
            outcome.lines
        );
        if kill.at == 0 {
            assert!(!data.exists(), "the first call was made, despite the kill");
        }
        check(&data, outcome.lines.len(), &about);
    }
    println!("done in {:.1?}", begun.elapsed());
}

/// Starts on what the child left, and compares with what it had acknowledged.
fn check(root: &Path, acknowledged: usize, about: &str) {
    let dir = DataDir::open(root).expect(about);
    let journal = Journal::open(&dir.journal()).expect(about);
    let found = (
        journal.runs().expect(about),
        journal.datasets().expect(about),
    );
    let fits = |acts: &usize| found == after(*acts);
    assert!(
        (0..=STORY.len())
            .skip(acknowledged)
            .take(2)
            .any(|acts| fits(&acts)),
        "{about}: {acknowledged} acts were acknowledged, the journal holds {:?}",
        (0..=STORY.len()).find(fits)
    );
    let (runs, _) = found;
    let next = journal.next_run_number().expect(about);
    assert_eq!(next, 1 + runs.len() as u64, "{about}");

    let folder = folder(&dir);
    let listed = runs.first().map_or(&[][..], |run| &run.checkpoints);
    let mut expected = BTreeSet::new();
    for info in listed {
        let path = checkpoints::path_for(&folder, info.step, info.generation);
        let manifest = path.with_extension("json");
        assert!(manifest.exists(), "{about}: {info:?} has no manifest");
        assert_eq!(*info, described(&manifest, about), "{about}");
        expected.extend([path, manifest]);
    }
    for path in files(&folder) {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(!name.starts_with(TEMPORARY), "{about}: {name} was left");
        if path.extension().is_some_and(|e| e == "json") {
            // Listed or not: programs that do not ask the coordinator find files by manifests.
            described(&path, about);
        }
    }
    checkpoints::sweep(&folder, listed).unwrap();
    assert_eq!(files(&folder), expected, "{about}: after the sweep");
}

/// What a manifest says, which must be true of its file.
fn described(manifest: &Path, about: &str) -> CheckpointInfo {
    let info = fs::read(manifest).expect(about);
    let info: CheckpointInfo = serde_json::from_slice(&info).expect(about);
    let bytes = fs::read(manifest.with_extension("safetensors")).expect(about);
    assert_eq!(info.bytes, bytes.len() as u64, "{about}");
    assert_eq!(info.sha256, hex::encode(Sha256::digest(bytes)), "{about}");
    info
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

// ---- the story

/// What the journal holds after so many acts: runs and datasets.
fn after(acts: usize) -> (Vec<Run>, Vec<(String, String)>) {
    let (mut run, mut dataset) = (None, None);
    for (number, act) in STORY[..acts].iter().enumerate() {
        match act {
            Act::Dataset(digest) => dataset = Some(("d".to_owned(), (*digest).to_owned())),
            Act::Run(listed) => run = Some(run_of(number, listed)),
            Act::Reopen => {}
        }
    }
    (run.into_iter().collect(), dataset.into_iter().collect())
}

/// The run as an act leaves it.
fn run_of(act: usize, listed: &[(u64, u64)]) -> Run {
    let extent = Extent {
        steps_per_epoch: 10,
        total_steps: 40,
        train_samples: 40,
        validation_samples: 2,
    };
    let spec = toml::from_str("name = 'r'\ndataset = 'd'").unwrap();
    let id = RunId::new("r-1").unwrap();
    let mut run = Run::new(id, 1, spec, "first".into(), extent, 0);
    // Long, so that it takes several pages of the database.
    let reason = format!("act {act}; ").repeat(1000);
    run.phase = Phase::Queued {
        reason: Some(reason),
    };
    for &(step, generation) in listed {
        let file = [header(), state(step, generation)].concat();
        run.checkpoints.push(CheckpointInfo {
            step,
            generation,
            bytes: file.len() as u64,
            sha256: hex::encode(Sha256::digest(file)),
            lineage: 0,
            stored_at_ms: 7,
            fingerprint: fingerprint(),
        });
    }
    run
}

/// The run in the child: tells, under ptrace, the whole story.
#[test]
fn child() {
    let Some(root) = std::env::var_os(FOLDER) else {
        return;
    };
    // SAFETY: neither call touches memory.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME) } != 0 {
        let error = Error::last_os_error();
        tell(&format!("refused {}", error.raw_os_error().unwrap()));
        return;
    }
    // SAFETY: as above. The parent takes hold of this thread here.
    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);

    let dir = DataDir::open(Path::new(&root)).unwrap();
    let folder = folder(&dir);
    let mut journal = Journal::open(&dir.journal()).unwrap();
    let mut stored: Vec<CheckpointInfo> = Vec::new();
    for (number, act) in STORY.iter().enumerate() {
        let mut replaced = Vec::new();
        match act {
            Act::Dataset(digest) => {
                let name = DatasetName::new("d").unwrap();
                journal.put_dataset(&name, digest).unwrap();
            }
            Act::Run(listed) => {
                let run = run_of(number, listed);
                for info in &run.checkpoints {
                    if !stored.contains(info) {
                        assert_eq!(store(&folder, info.step, info.generation), *info);
                    }
                }
                journal.put_run(&run, None).unwrap();
                stored.retain(|old| !run.checkpoints.contains(old));
                replaced = mem::replace(&mut stored, run.checkpoints);
            }
            Act::Reopen => {
                drop(journal);
                journal = Journal::open(&dir.journal()).unwrap();
            }
        }
        tell(&format!("{number} {act:?}"));
        for old in replaced {
            checkpoints::remove(&folder, old.step, old.generation).unwrap();
        }
    }
}

/// Gathers a checkpoint as the owner does.
fn store(folder: &Path, step: u64, generation: u64) -> CheckpointInfo {
    let bytes = state(step, generation);
    let file = AssemblyFile::create(folder, step, generation, &header(), ELEMENTS).unwrap();
    for (rank, slice) in bytes.chunks(SLICE).enumerate() {
        file.write_at(slice, (rank * SLICE) as u64).unwrap();
        file.sync().unwrap();
    }
    let digest = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes));
    file.finish(&digest, fingerprint(), 7).unwrap()
}

fn folder(dir: &DataDir) -> PathBuf {
    dir.checkpoints().join("r-1")
}

fn header() -> Vec<u8> {
    let end = ELEMENTS * 4;
    let json =
        format!(r#"{{"x":{{"dtype":"F32","shape":[{ELEMENTS}],"data_offsets":[0,{end}]}}}}"#);
    let json = format!("{json:<width$}", width = json.len().next_multiple_of(8));
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// Another one for every checkpoint.
fn state(step: u64, generation: u64) -> Vec<u8> {
    (0..ELEMENTS)
        .flat_map(|i| ((i + ELEMENTS * (step + generation)) as f32).to_le_bytes())
        .collect()
}

fn fingerprint() -> Fingerprint {
    serde_json::from_str(
        r#"{"device":"cpu","cpu":"x","libtorch":"2","threads":1,"precision":"x","fovea":"test"}"#,
    )
    .unwrap()
}

/// Writes a line into the pipe, which the child has as its standard input: the only one of the three
/// streams that the test harness does not use.
fn tell(line: &str) {
    let line = format!("{line}\n");
    // SAFETY: the pointer and the length are those of `line`.
    let written = unsafe { libc::write(0, line.as_ptr().cast(), line.len()) };
    assert_eq!(written, line.len() as isize);
}

// ---- killing

/// When the child is to be killed.
#[derive(Debug)]
struct Kill {
    /// Index of the call that changes files.
    at: usize,
    /// After it has written half of its bytes, instead of before it.
    half: bool,
}

/// A call that changes files.
struct Point {
    call: &'static str,
    /// Where it names one by its descriptor.
    file: String,
    /// That it writes, where these can be halved.
    bytes: u64,
}

/// What became of a child.
struct Outcome {
    /// What it said.
    lines: Vec<String>,
    /// The calls that it came to.
    points: Vec<Point>,
    /// As by `waitpid`.
    status: c_int,
}

/// How a call says that it changes a file.
enum By {
    /// This argument is the file's descriptor.
    File(usize),
    /// This argument holds flags to make or empty the file.
    Flags(usize),
    Nature,
}

macro_rules! calls {
    ($($by:expr => $($name:ident)*;)*) => { &[$($((libc::$name, stringify!($name), $by)),*),*] };
}

const CALLS: &[(c_long, &str, By)] = calls! {
    By::File(0) => SYS_write SYS_pwrite64 SYS_writev SYS_pwritev SYS_pwritev2 SYS_sendfile SYS_fsync
        SYS_fdatasync SYS_ftruncate SYS_fallocate;
    By::File(2) => SYS_copy_file_range;
    By::Flags(1) => SYS_open;
    By::Flags(2) => SYS_openat;
    By::Nature => SYS_creat SYS_truncate SYS_rename SYS_renameat SYS_renameat2 SYS_unlink SYS_unlinkat
        SYS_rmdir SYS_mkdir SYS_mkdirat SYS_link SYS_linkat SYS_symlink SYS_symlinkat;
};

/// Runs a child in the folder, and kills it where that is asked for.
#[expect(clippy::zombie_processes, reason = "waitpid takes it")]
fn perform(root: &Path, kill: Option<&Kill>) -> Outcome {
    let (mut pipe, writer) = std::io::pipe().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["torn::child", "--exact", "--nocapture"])
        .env(FOLDER, root)
        .stdin(writer)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id() as pid_t;
    let mut points = Vec::new();
    // The call under way writes only half, and is the last.
    let mut halved = false;
    let status = loop {
        let mut status = 0;
        // Only children and tracees of this thread: other tests have theirs.
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: `status` outlives the call.
        let tid = unsafe { libc::waitpid(-1, &mut status, flags) };
        assert!(tid > 0, "{}", Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            if tid == pid {
                break status;
            }
            continue;
        }
        let mut signal = 0;
        match libc::WSTOPSIG(status) {
            // The child is ready, or a thread of its begins.
            libc::SIGSTOP => {
                let options = libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_EXITKILL
                    | libc::PTRACE_O_TRACECLONE;
                // SAFETY: the call touches no memory.
                let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options) };
                assert_eq!(set, 0, "{}", Error::last_os_error());
            }
            // It makes a thread.
            libc::SIGTRAP => {}
            CALL => {
                let mut dies = halved;
                if let Some(point) = point(tid) {
                    if let Some(kill) = kill.filter(|kill| kill.at == points.len()) {
                        if kill.half {
                            halve(tid);
                        }
                        (halved, dies) = (kill.half, !kill.half);
                    }
                    points.push(point);
                }
                if dies {
                    // The kernel skips a call on whose entry its process is killed.
                    // SAFETY: the child was not waited for, so the number is still its own.
                    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
                    continue;
                }
            }
            other => signal = other,
        }
        // SAFETY: the call touches no memory. Where it fails, the next wait says why.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, tid, 0, signal) };
    };
    let mut said = String::new();
    pipe.read_to_string(&mut said).unwrap();
    Outcome {
        lines: said.lines().map(str::to_owned).collect(),
        points,
        status,
    }
}

/// The call that a stopped thread begins, if it changes files.
fn point(tid: pid_t) -> Option<Point> {
    // SAFETY: all its fields are numbers.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info);
    // SAFETY: the kernel writes no more than `size` bytes into `info`.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size, &mut info) };
    assert!(got > 0, "{}", Error::last_os_error());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the union is that of an entry.
    let libc::__c_anonymous_ptrace_syscall_info_entry { nr, args } = unsafe { info.u.entry };
    let (number, call, by) = CALLS.iter().find(|call| call.0 as u64 == nr)?;
    let mut file = String::new();
    match by {
        // The pipe, and what the test harness prints.
        By::File(argument) if args[*argument] <= 2 => return None,
        By::File(argument) => {
            let link = fs::read_link(format!("/proc/{tid}/fd/{}", args[*argument]));
            file = link.unwrap().display().to_string();
        }
        By::Flags(argument) => {
            let flags = args[*argument] as c_int & (libc::O_CREAT | libc::O_TRUNC);
            (flags != 0).then_some(())?;
        }
        By::Nature => {}
    }
    let halvable = [libc::SYS_write, libc::SYS_pwrite64].contains(number);
    let bytes = if halvable { args[2] } else { 0 };
    Some(Point { call, file, bytes })
}

/// Makes the write that a stopped thread begins half as long.
fn halve(tid: pid_t) {
    // SAFETY: all its fields are numbers.
    let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
    // The third argument is the length.
    // SAFETY: `registers` is what these calls write and read.
    unsafe {
        assert_eq!(
            libc::ptrace(libc::PTRACE_GETREGS, tid, 0, &mut registers),
            0
        );
        registers.rdx /= 2;
        assert_eq!(libc::ptrace(libc::PTRACE_SETREGS, tid, 0, &registers), 0);
    }
}

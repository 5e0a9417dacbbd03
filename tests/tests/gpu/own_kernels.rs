//! Fovea's own kernels on a GPU: compared with libtorch's operations, used by default where they pass, and with the same bits however
//! many workers there are.

use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use fovea_proto::pb;
use fovea_tests::process::binary;
use fovea_tests::{Cluster, SoftGpu};

use crate::{cluster, spec, trained};

/// `devices --check` with our kernels in `data_dir`: its exit status, its report, its log.
fn checked(worker: &Path, data_dir: &Path, environment: &[(&str, &str)]) -> (bool, String, String) {
    let output = Command::new(worker)
        .args(["--device", "cuda:0", "--data-dir"])
        .arg(data_dir)
        .args(["devices", "--check", "--images", "2"])
        .env("OMP_NUM_THREADS", "1")
        .envs(environment.iter().copied())
        .output()
        .expect("fovea-worker starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The report of a comparison that has passed. The same source that a GPU runs was compiled for the CPU: gradients, losses, updates and
/// scores are those of libtorch.
fn all_is_right(report: &str) {
    println!("{report}");
    assert!(report.contains("NVRTC          13.0"), "{report}");
    let rows = report.lines().filter(|line| line.starts_with("ok   "));
    assert_eq!(rows.count(), 8, "{report}");
    // In float32 nothing but the order of additions differs.
    for row in report
        .lines()
        .filter(|line| line.starts_with("ok   Float32"))
    {
        let number = |text: &str| text.trim().parse::<f64>().expect("a number");
        let after = row.split("gradient ").nth(1).expect("a gradient");
        let gradient = after.split(',').next().map(number).expect("its difference");
        assert!(gradient < 1e-5, "{row}");
    }
}

/// What was kept of the comparison of a worker with its data in `folder`.
fn kept_report(folder: &Path) -> String {
    let files = std::fs::read_dir(folder.join("kernels")).expect("the folder of kernels");
    let mut passed = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "passed"));
    let file = passed.next().expect("a report");
    assert_eq!(passed.next(), None);
    std::fs::read_to_string(file).expect("the report")
}

#[test]
fn without_a_compiler_the_check_says_so() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let worker = SoftGpu::install(&dir.path().join("gpu")).worker();
    let (good, report, log) = checked(
        &worker,
        &dir.path().join("data"),
        &[("SOFT_GPU_NO_NVRTC", "1")],
    );
    assert!(!good && report.contains("FAIL"), "{report}");
    let reason = "gpu.kernels_missing: Fovea's own kernels cannot be used on cuda:0";
    assert!(log.contains(reason), "{log}");
    assert!(log.contains("SOFT_GPU_NO_NVRTC is set"), "{log}");
}

#[cfg_attr(not(has_gpu), ignore = "needs an NVIDIA GPU; `make test-gpu` runs it")]
#[test]
fn our_kernels_compute_what_libtorch_does_on_one_gpu() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let worker = binary("fovea-worker");
    let (good, report, log) = checked(&worker, dir.path(), &[]);
    println!("{report}{log}");
    assert!(good, "{report}{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_kernels_keep_the_bits() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let gpu = SoftGpu::install(&dir.path().join("gpu"));
    our_kernels_keep_bits(dir.path(), &gpu.worker(), 1).await;
}

#[cfg_attr(not(has_gpu), ignore = "needs an NVIDIA GPU; `make test-gpu` runs it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_kernels_keep_the_bits_on_one_gpu() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    our_kernels_keep_bits(dir.path(), &binary("fovea-worker"), 4).await;
}

/// In bf16, of so few epochs that emulated kernels are done soon.
fn short(name: &str, workers: RangeInclusive<u32>, epochs: u32) -> pb::RunSpec {
    let mut short = spec(name, workers, pb::Precision::Bf16);
    let train = short.train.as_mut().expect("it has one");
    (train.epochs, train.virtual_ranks, train.batch) = (Some(epochs), Some(4), Some(2));
    short
}

/// Two workers over NCCL, of which one is killed, end in the bits of one.
async fn our_kernels_keep_bits(dir: &Path, worker: &Path, epochs: u32) {
    let mut cluster = cluster(dir, worker);
    let environment = |host| {
        [
            ("NCCL_HOSTID", host),
            ("OMP_NUM_THREADS", "1"),
            ("FOVEA_GPU_KERNELS", "on"),
        ]
    };
    cluster.add_worker_on("cuda:0", &environment("first"));
    let (_, one) = trained(&cluster, short("one", 1..=1, epochs), |_| {}).await;
    let log = cluster.workers[0].log();
    assert!(log.contains("gpu.fused: "), "{log}");
    cluster.add_worker_on("cuda:0", &environment("second"));
    let last = cluster.workers.pop().expect("the second worker");
    let mut victim = Some(last);
    let (_, killed) = trained(&cluster, short("killed", 1..=2, epochs), |step| {
        if step >= 2
            && let Some(victim) = victim.take()
        {
            victim.signal(libc::SIGKILL);
        }
    })
    .await;
    assert!(
        killed == one,
        "two workers, and one of them killed, end in other bits than one"
    );
    let log = cluster.workers[0].log();
    let nccl = "reduction.selected: gradients are reduced by NCCL";
    assert!(log.contains(nccl), "{log}");
}

/// The log of a worker with the default `gpu_kernels` and these settings, after a short run.
async fn trained_by_a_new_worker(
    cluster: &mut Cluster,
    name: &str,
    settings: &[(&str, &str)],
) -> String {
    let mut environment = vec![
        ("OMP_NUM_THREADS", "1"),
        ("FOVEA_GPU_KERNELS", "auto"),
        // Three images in the large step, and room for the run.
        ("SOFT_GPU_MIB", "1023"),
    ];
    environment.extend(settings);
    cluster.add_worker_on("cuda:0", &environment);
    trained(cluster, short(name, 1..=1, 1), |_| {}).await;
    let worker = cluster.workers.pop().expect("it was started");
    worker.signal(libc::SIGKILL);
    worker.log()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_kernels_are_used_where_they_have_passed_once() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let worker = SoftGpu::install(&dir.path().join("gpu")).worker();
    let without_compiler = [("SOFT_GPU_NO_NVRTC", "1")];
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).expect("a folder can be made");
        folder
    };
    let mut first = cluster(&folder("first"), &worker);
    let log = trained_by_a_new_worker(&mut first, "first", &[]).await;
    assert!(
        log.contains("gpu.kernels_checking: ") && log.contains("gpu.kernels_checked: "),
        "{log}"
    );
    assert!(log.contains("gpu.fused: "), "{log}");
    all_is_right(&kept_report(&dir.path().join("first/worker-data")));
    // What was compiled and has passed is kept.
    let log = trained_by_a_new_worker(&mut first, "again", &without_compiler).await;
    assert!(
        !log.contains("gpu.kernels_checking: ") && log.contains("gpu.fused: "),
        "{log}"
    );
    drop(first);
    // A worker whose kernels do not pass trains all the same.
    let mut other = cluster(&folder("other"), &worker);
    let log = trained_by_a_new_worker(&mut other, "other", &without_compiler).await;
    let reason =
        "gpu.kernels_differ: Fovea's own kernels have not passed their comparison on cuda:0";
    assert!(
        log.contains(reason) && !log.contains("gpu.fused: "),
        "{log}"
    );
}

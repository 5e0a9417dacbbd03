//! Training on a GPU: a real one where there is one (`make test-gpu`), and one of software, which takes the worker the same
//! way through CUDA and NCCL on any machine.
//!
//! Two workers share the one GPU, each with a host id of its own: NCCL then takes them for two machines and sends over
//! sockets. That is enough to compare bits; the timings of such a run mean nothing.

mod own_kernels;

use std::path::{Path, PathBuf};
use std::process::Command;

use fovea_proto::pb;
use fovea_proto::pb::run_event::Event;
use fovea_tests::launch::CoordinatorOptions;
use fovea_tests::process::binary;
use fovea_tests::{Cluster, SoftGpu, synthetic_dataset, tensors};

/// The worker's report on devices.
///
/// # Panics
/// If it sees no GPU that it can use.
fn devices(worker: &Path) -> String {
    let output = Command::new(worker)
        .arg("devices")
        .output()
        .expect("fovea-worker starts");
    assert!(output.status.success(), "{output:?}");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = |name: &str| report.lines().find(|line| line.starts_with(name));
    let usable = row("libtorch_cuda").is_some_and(|row| row.contains("loaded, sees"));
    assert!(usable, "no GPU to train on: {report}");
    report
}

fn spec(
    name: &str,
    workers: std::ops::RangeInclusive<u32>,
    precision: pb::Precision,
) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        model: None,
        train: Some(pb::TrainSpec {
            epochs: Some(1),
            virtual_ranks: Some(2),
            batch: Some(6),
            learning_rate: Some(0.0005),
            precision: Some(precision.into()),
            digest_every: Some(2),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(*workers.start()),
            max: Some(*workers.end()),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(5),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A coordinator with a small dataset in `dir`; workers are going to be started from the program `worker`.
fn cluster(dir: &Path, worker: &Path) -> Cluster {
    let prepared = synthetic_dataset(dir, 24, 64);
    let mut options = CoordinatorOptions::new(dir);
    // There is one GPU, and two workers are to use it.
    let shared = ("FOVEA_ALLOW_SHARED_GPU".into(), "true".into());
    options.environment.push(shared);
    let mut cluster = Cluster::start_with(dir, 0, options);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    cluster.set_worker(worker);
    cluster
}

/// Trains to the end: the losses of the steps, and the final tensors.
async fn trained(
    cluster: &Cluster,
    spec: pb::RunSpec,
    mut at: impl FnMut(u64),
) -> (Vec<f64>, std::collections::BTreeMap<String, Vec<u8>>) {
    let run = cluster.submit(spec).await;
    let mut losses = Vec::new();
    let end = cluster
        .watch(&run.id, |event| {
            if let Event::Step(step) = event {
                losses.push(step.loss);
                at(step.step);
            }
            matches!(event, Event::Run(run) if matches!(
                run.phase(),
                pb::Phase::Completed | pb::Phase::Failed | pb::Phase::Cancelled
            ))
        })
        .await;
    let Event::Run(run) = end else {
        unreachable!("only a run ends the wait")
    };
    assert_eq!(run.phase(), pb::Phase::Completed, "{}", run.reason);
    let file = cluster.checkpoint(&run.id, run.total_steps).await;
    (losses, tensors(&file))
}

#[cfg_attr(not(has_gpu), ignore = "needs an NVIDIA GPU; `make test-gpu` runs it")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_losses_and_kills_on_one_gpu() {
    let worker = binary("fovea-worker");
    println!("{}", devices(&worker));
    bits_losses_and_kills(&worker, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_losses_and_kills_on_a_gpu_of_software() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let worker = SoftGpu::install(dir.path()).worker();
    let report = devices(&worker);
    println!("{report}");
    assert!(report.contains("cuda:0         Software GPU"), "{report}");
    // Its steps are slow: few of them.
    bits_losses_and_kills(&worker, 1).await;
}

/// One virtual rank on each at last. To NCCL each worker is on a machine of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_gpus_end_in_the_bits_of_one() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let gpu = SoftGpu::install(&dir.path().join("gpu"));
    let mut cluster = cluster(dir.path(), &gpu.worker());
    let mut expected = None;
    for workers in [1, 2, 4, 8] {
        while cluster.workers.len() < workers as usize {
            let host = cluster.workers.len().to_string();
            let environment = [("OMP_NUM_THREADS", "1"), ("NCCL_HOSTID", &host)];
            cluster.add_worker_on("cuda:0", &environment);
        }
        let name = format!("on-{workers}");
        let mut spec = spec(&name, workers..=workers, pb::Precision::Float32);
        let train = spec.train.as_mut().expect("it has one");
        (train.virtual_ranks, train.batch, train.epochs) = (Some(8), Some(2), Some(1));
        let (_, found) = trained(&cluster, spec, |_| {}).await;
        let first = expected.get_or_insert_with(|| found.clone());
        assert!(found == *first, "{workers} workers end in other bits");
    }
    let nccl = "reduction.selected: gradients are reduced by NCCL";
    for worker in &cluster.workers {
        let log = worker.log();
        assert!(log.contains(nccl), "{log}");
    }
}

/// NCCL would refuse two ranks on one GPU: their gradients travel through the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_may_share_a_gpu() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let gpu = SoftGpu::install(&dir.path().join("gpu"));
    let mut cluster = cluster(dir.path(), &gpu.worker());
    let environment = [("OMP_NUM_THREADS", "1")];
    cluster.add_worker_on("auto", &environment);
    let float32 = pb::Precision::Float32;
    let (_, one) = trained(&cluster, spec("one", 1..=1, float32), |_| {}).await;
    cluster.add_worker_on("auto", &environment);
    let (_, two) = trained(&cluster, spec("two", 2..=2, float32), |_| {}).await;
    assert!(one == two, "the bits differ");
    let log = cluster.workers[1].log();
    assert!(log.contains("share a GPU"), "{log}");
}

/// Unless it is allowed they are not in one run, and the run says why it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_share_a_gpu_are_not_in_one_run() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let gpu = SoftGpu::install(&dir.path().join("gpu"));
    let mut cluster = cluster(dir.path(), &gpu.worker());
    cluster.coordinator.signal(libc::SIGKILL);
    cluster.options.environment.clear();
    cluster.restart_coordinator();
    let environment = [("OMP_NUM_THREADS", "1")];
    cluster.add_worker_on("cuda:0", &environment);
    cluster.add_worker_on("cuda:0", &environment);
    let mut two = spec("two", 2..=2, pb::Precision::Float32);
    two.workers.as_mut().expect("given").mixed = Some(true);
    let run = cluster.submit(two).await;
    let shown = |run: &pb::Run| run.reason.contains(" shares GPU-00000000-");
    let waiting = cluster.run_until(&run.id, shown).await.reason;
    assert!(
        waiting.starts_with("needs 2 workers; idle: 1; w"),
        "{waiting}"
    );
    assert!(waiting.contains("`local_rank`"), "{waiting}");
    let log = cluster.coordinator.log();
    assert!(log.contains("worker.shares_gpu: w"), "{log}");
    // A worker on the CPU is no third one on that GPU.
    cluster.add_worker();
    let started = |run: &pb::Run| run.workers.len() == 2;
    let workers = cluster.run_until(&run.id, started).await.workers;
    assert!(
        workers.iter().any(|id| id.starts_with("w2-")),
        "{workers:?}"
    );
}

/// A GPU that never ends a kernel still accepts work and queries. Its worker must not be mistaken for one that waits for its
/// peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_of_a_gpu_that_hangs_is_evicted() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let gpu = SoftGpu::install(&dir.path().join("gpu"));
    let mut cluster = cluster(dir.path(), &gpu.worker());
    let hangs = dir.path().join("hangs");
    let environment = [
        ("OMP_NUM_THREADS", "1"),
        ("NCCL_HOSTID", "well"),
        ("SOFT_GPU_HANGS_ON", hangs.to_str().expect("UTF-8")),
        // Of the last part of a step, behind which nothing waits for the GPU but the reduction.
        ("SOFT_GPU_HANGS_IN", "convolution_backward"),
    ];
    cluster.add_worker_on("cuda:0", &environment[..2]);
    let mut ill = environment;
    ill[1].1 = "ill";
    cluster.add_worker_on("cuda:0", &ill);
    let spec = |name: &str, workers| {
        let mut spec = spec(name, workers, pb::Precision::Float32);
        spec.train.as_mut().expect("it has one").epochs = Some(3);
        spec
    };
    let (_, disturbed) = trained(&cluster, spec("disturbed", 1..=2), |step| {
        if step == 4 {
            std::fs::write(&hangs, "").expect("a file can be written");
        }
    })
    .await;
    let log = cluster.coordinator.log();
    // At once: it was not mistaken for one that waits for its peer.
    assert!(!log.contains("waited for each other"), "{log}");
    assert!(!log.contains("generation.deadlocked: "), "{log}");
    let is_eviction = |line: &&str| line.contains("worker.evicted: ");
    let evictions: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("WARN"))
        .filter(is_eviction)
        .collect();
    let named = |line: &&str| line.contains("w1-");
    assert!(
        !evictions.is_empty() && evictions.iter().all(named),
        "{log}"
    );
    let ill = cluster.workers.pop().expect("the second worker");
    ill.signal(libc::SIGKILL);
    let (_, expected) = trained(&cluster, spec("well", 1..=1), |_| {}).await;
    assert!(disturbed == expected, "the bits differ");
}

/// A worker that takes itself to be on another machine: its boot id is another one.
fn elsewhere(worker: &Path, dir: &Path) -> PathBuf {
    let (boot_id, program) = (dir.join("boot-id"), dir.join("worker-elsewhere"));
    std::fs::write(&boot_id, "00000000-1111-2222-3333-444444444444\n").expect("a file");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {} /proc/sys/kernel/random/boot_id && exec {} \"$@\"' sh \"$@\"\n",
        boot_id.display(),
        worker.display()
    );
    std::fs::write(&program, script).expect("a file");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, all).expect("the file is ours");
    program
}

/// NCCL cannot encrypt. With TLS, gradients go from one machine to another over the workers' connections, unless all of them
/// allow the other.
#[cfg_attr(not(has_mount), ignore = "needs to mount a boot id: root")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gradients_leave_a_machine_in_plain_text_only_where_all_allow_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let gpu = SoftGpu::install(&dir.path().join("gpu"));
    let other = elsewhere(&gpu.worker(), dir.path());
    let prepared = synthetic_dataset(dir.path(), 24, 64);
    let mut cluster = Cluster::start_secure(dir.path(), 0);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let float32 = pb::Precision::Float32;
    let mut results = Vec::new();
    for (allowed, selected) in [
        (["false", "false"], "reduction.encrypted: "),
        (["true", "false"], "reduction.encrypted: "),
        (["true", "true"], "gradients are reduced by NCCL"),
    ] {
        for (number, program) in [gpu.worker(), other.clone()].iter().enumerate() {
            cluster.set_worker(program);
            let environment = [
                ("OMP_NUM_THREADS", "1"),
                ("NCCL_HOSTID", ["here", "there"][number]),
                ("FOVEA_ALLOW_PLAINTEXT_NCCL", allowed[number]),
            ];
            cluster.add_worker_on("cuda:0", &environment);
        }
        let (_, found) = trained(&cluster, spec("two", 2..=2, float32), |_| {}).await;
        results.push(found);
        for worker in &cluster.workers {
            let log = worker.log();
            assert!(log.contains(selected), "{allowed:?}: {log}");
        }
        cluster.workers.clear();
    }
    assert!(
        results.iter().all(|found| *found == results[0]),
        "the bits differ"
    );
}

async fn bits_losses_and_kills(worker: &Path, epochs: u32) {
    let spec = |name: &str, workers, precision| {
        let mut spec = spec(name, workers, precision);
        let train = spec.train.as_mut().expect("it has one");
        (train.epochs, train.virtual_ranks, train.batch) = (Some(epochs), Some(4), Some(2));
        spec
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir: PathBuf = dir.path().to_owned();
    let mut cluster = cluster(&dir, worker);
    // One thread: a software GPU computes on it, and a real one does not need more.
    let first = [("NCCL_HOSTID", "first"), ("OMP_NUM_THREADS", "1")];
    cluster.add_worker_on("cuda:0", &first);

    let mut results = Vec::new();
    for precision in [
        pb::Precision::Bf16,
        pb::Precision::Tf32,
        pb::Precision::Float32,
    ] {
        let (losses, once) = trained(&cluster, spec("one", 1..=1, precision), |_| {}).await;
        let (_, again) = trained(&cluster, spec("again", 1..=1, precision), |_| {}).await;
        assert!(again == once, "{precision:?}: not the same bits twice");
        println!("{precision:?}: the same bits twice; losses {losses:?}");
        results.push((losses, once));
    }

    // Against the CPU: the first losses, before rounding errors have grown.
    let float32 = pb::Precision::Float32;
    let (gpu, expected) = results.pop().expect("those of float32");
    let elsewhere = dir.join("cpu");
    std::fs::create_dir_all(&elsewhere).expect("a folder can be made");
    let mut cpu_cluster = self::cluster(&elsewhere, worker);
    cpu_cluster.add_worker();
    let (cpu, _) = trained(&cpu_cluster, spec("cpu", 1..=1, float32), |_| {}).await;
    drop(cpu_cluster);
    for (step, (gpu, cpu)) in gpu.iter().zip(&cpu).take(3).enumerate() {
        let off = (gpu - cpu).abs() / cpu.abs();
        println!("step {}: loss {gpu} on the GPU, {cpu} on the CPU", step + 1);
        assert!(off < 0.01, "step {}: {gpu} and {cpu}", step + 1);
    }

    // Over NCCL: two workers on the one card, and one of them killed.
    let second = [("NCCL_HOSTID", "second"), ("OMP_NUM_THREADS", "1")];
    cluster.add_worker_on("cuda:0", &second);
    let (_, two) = trained(&cluster, spec("two", 2..=2, float32), |_| {}).await;
    assert!(two == expected, "two workers end in other bits than one");
    let log = cluster.workers[1].log();
    assert!(
        log.contains("reduction.selected: gradients are reduced by NCCL"),
        "{log}"
    );
    // One sum over both, in an order of NCCL's own: the same but for the bits.
    let mut fast = spec("fast", 2..=2, float32);
    if let Some(train) = &mut fast.train {
        train.reduction = Some(pb::Reduction::Fast.into());
    }
    let (fast, _) = trained(&cluster, fast, |_| {}).await;
    for (step, (fast, ordered)) in fast.iter().zip(&gpu).take(3).enumerate() {
        let off = (fast - ordered).abs() / ordered.abs();
        assert!(off < 0.01, "step {}: {fast} and {ordered}", step + 1);
    }
    let victim = cluster.workers.pop().expect("the second worker");
    let mut victim = Some(victim);
    let mut since: Option<std::time::Instant> = None;
    let (_, killed) = trained(&cluster, spec("killed", 1..=2, float32), |step| {
        if let Some(since) = since.take() {
            println!("step {step}: {:?} after the kill", since.elapsed());
        }
        if step >= 2
            && let Some(victim) = victim.take()
        {
            victim.signal(libc::SIGKILL);
            since = Some(std::time::Instant::now());
        }
    })
    .await;
    assert!(killed == expected, "a killed worker changed the bits");
    let log = cluster.workers[0].log();
    let formed = log
        .lines()
        .rfind(|line| line.contains("assignment.ready: "));
    let formed = formed.expect("the one that is left formed a generation alone");
    let (_, took) = formed.split_once(" after ").expect("how long it took");
    println!("the generation after the kill formed after {took}");
    println!("one worker, two over NCCL, and one of two killed: the same bits");
}

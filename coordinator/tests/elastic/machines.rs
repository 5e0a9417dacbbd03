//! Workers of different kinds of machine: a run has one kind, that of its first generation, unless its spec or a person says otherwise.

use fovea_proto::pb;
use fovea_proto::pb::Phase;
use fovea_proto::pb::worker_message::Message as Up;

use super::{Stage, gather, ids_of, spec_of};
use crate::common::*;

/// A worker and its kind of machine, which it says in its hello and with its fingerprint.
struct Of {
    machine: pb::Machine,
    worker: Worker,
}

fn kind(device: &str, cpu: &str) -> pb::Machine {
    pb::Machine {
        device: device.into(),
        cpu: cpu.into(),
        libtorch: "2.11.0".into(),
        kernels: String::new(),
    }
}

fn h100() -> pb::Machine {
    kind("NVIDIA H100 80GB HBM3", "cuDNN 9.19.0")
}

impl Of {
    async fn join(stage: &Stage, id: &str, machine: pb::Machine) -> Self {
        let Up::Hello(mut message) = hello(id) else {
            unreachable!("hello says hello")
        };
        message.device.clone_from(&machine.device);
        message.machine = Some(machine.clone());
        let worker = Worker::begin(&stage.server, Up::Hello(message)).await;
        Self { machine, worker }
    }

    async fn ready(&self, at: &pb::Assignment) {
        let Up::Ready(mut message) = ready(at) else {
            unreachable!("ready says ready")
        };
        let pb::Machine {
            device,
            cpu,
            libtorch,
            kernels,
        } = self.machine.clone();
        message.fingerprint = Some(pb::Fingerprint {
            device,
            cpu,
            libtorch,
            kernels,
            threads: 1,
            ..Default::default()
        });
        self.worker.send(Up::Ready(message)).await;
    }
}

/// The members get the same assignment and are ready.
async fn form(members: &mut [&mut Of]) -> pb::Assignment {
    let mut workers: Vec<&mut Worker> = members.iter_mut().map(|of| &mut of.worker).collect();
    let at = gather(&mut workers).await;
    for member in members {
        member.ready(&at).await;
    }
    at
}

/// What keeps an idle worker from runs, as people see it.
async fn kept(stage: &Stage, id: &str) -> String {
    let request = pb::ListWorkersRequest {};
    let listed = stage.server.cluster().list_workers(request).await;
    let listed = listed.unwrap();
    let all = listed.into_inner().workers;
    let worker = all.into_iter().find(|w| w.id == id);
    worker.expect("it is connected").reason
}

async fn waits(stage: &Stage, run: &pb::Run, reason: &str) -> String {
    let waiting = |run: &pb::Run| run.reason.contains(reason);
    stage.server.run_when(&run.id, reason, waiting).await.reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_one_kind_of_machine_until_a_person_resumes_it() {
    let stage = Stage::new().await;
    let a = || kind("cpu", "a (avx2)");
    let b = || kind("cpu", "b (avx2 avx512f)");
    let w1 = Of::join(&stage, "w1", a()).await;
    let mut w2 = Of::join(&stage, "w2", b()).await;
    let mut w3 = Of::join(&stage, "w3", b()).await;
    let run = stage.server.submit(spec_of(4, 1, 4)).await.unwrap();
    let mut watch = stage.server.watch(&run.id).await;
    // The kind of which there are the most.
    let at = form(&mut [&mut w2, &mut w3]).await;
    assert_eq!(ids_of(&at), ["w2", "w3"]);
    watch.until(Phase::Running).await;
    let reason = kept(&stage, "w1").await;
    assert!(
        reason.contains("would change its bits: cpu was \"b (avx2 avx512f)\", now \"a (avx2)\""),
        "{reason}"
    );

    // It waits for its own kind, and says so.
    drop((w2, w3));
    let reason = waits(&stage, &run, "other machines").await;
    assert!(
        reason.contains("w1 (cpu was \"b (avx2 avx512f)\", now \"a (avx2)\")"),
        "{reason}"
    );
    // Also after a restart of the coordinator.
    let stage = stage.restart().await;
    drop(w1);
    let mut w1 = Of::join(&stage, "w1", a()).await;
    waits(&stage, &run, "other machines").await;
    assert_eq!(w1.worker.remaining_messages().await, []);
    let mut w1 = Of::join(&stage, "w5", a()).await;
    let mut w4 = Of::join(&stage, "w4", b()).await;
    let at = form(&mut [&mut w4]).await;
    assert_eq!(ids_of(&at), ["w4"]);

    // A person lets it go on with others. Its former kind comes first.
    let mut watch = stage.server.watch(&run.id).await;
    watch.until_in(Phase::Running, at.generation).await;
    drop(w4);
    waits(&stage, &run, "other machines").await;
    stage.pause(&run).await.unwrap();
    stage.resume(&run, None).await.unwrap();
    let at = form(&mut [&mut w1]).await;
    assert_eq!(ids_of(&at), ["w5"]);
    watch.until_in(Phase::Running, at.generation).await;
    let _w6 = Of::join(&stage, "w6", b()).await;
    let reason = kept(&stage, "w6").await;
    assert!(reason.contains("cpu was \"a (avx2)\""), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_asks_for_a_device_or_allows_different_ones() {
    let stage = Stage::new().await;
    let mut gpu = Of::join(&stage, "gpu", h100()).await;
    let mut cpu = Of::join(&stage, "cpu", kind("cpu", "a")).await;
    let with = |device: &str, mixed: bool| {
        let mut spec = spec_of(4, 1, 4);
        let workers = spec.workers.as_mut().expect("given");
        workers.device = Some(device.into());
        workers.mixed = Some(mixed);
        spec
    };
    // Nobody has it: that is known when it is submitted.
    let none = stage.server.submit(with("A100", false)).await.unwrap();
    assert!(
        none.reason
            .contains("workers.device = \"A100\": gpu has NVIDIA H100 80GB HBM3, cpu has cpu"),
        "{}",
        none.reason
    );
    let run = stage.server.submit(with("cpu", false)).await.unwrap();
    let at = form(&mut [&mut cpu]).await;
    assert_eq!((ids_of(&at), &at.run_id), (vec!["cpu"], &run.id));
    // Two that are not alike are not enough for a run that needs two.
    let mut two = spec_of(4, 2, 4);
    two.name = "two".into();
    let two = stage.server.submit(two).await.unwrap();
    let _other = Of::join(&stage, "other", kind("cpu", "b")).await;
    let reason = waits(&stage, &two, "another kind").await;
    assert!(
        reason.contains(
            "idle: 1; 1 idle worker computes on machines of another kind, which a run does not mix"
        ),
        "{reason}"
    );
    assert_eq!(gpu.worker.remaining_messages().await, []);

    // One GPU rather than two processors, and all if that is allowed.
    for (mixed, expected) in [(false, vec!["gpu"]), (true, vec!["cpu-1", "cpu-2", "gpu"])] {
        let stage = Stage::new().await;
        let mut first = Of::join(&stage, "cpu-1", kind("cpu", "a")).await;
        let mut second = Of::join(&stage, "cpu-2", kind("cpu", "a")).await;
        let mut gpu = Of::join(&stage, "gpu", h100()).await;
        let run = stage.server.submit(with("", mixed)).await.unwrap();
        let at = match mixed {
            false => form(&mut [&mut gpu]).await,
            true => form(&mut [&mut first, &mut second, &mut gpu]).await,
        };
        assert_eq!(ids_of(&at), expected);
        stage
            .server
            .watch(&run.id)
            .await
            .until(Phase::Running)
            .await;
    }
}

/// A worker that does not say what its machine is shows it when it is ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_computes_otherwise_is_left_out() {
    let stage = Stage::new().await;
    let mut known = Of::join(&stage, "known", kind("cpu", "a")).await;
    let run = stage.server.submit(spec_of(4, 1, 4)).await.unwrap();
    let at = form(&mut [&mut known]).await;
    let mut watch = stage.server.watch(&run.id).await;
    watch.until_in(Phase::Running, at.generation).await;
    let mut silent = stage.join("silent").await;
    let asked = silent.prepare().await;
    silent.prepared(&asked, "").await;
    let at = gather(&mut [&mut known.worker, &mut silent]).await;
    silent.ready(&at).await;
    let next = form(&mut [&mut known]).await;
    assert_eq!(ids_of(&next), ["known"]);
    let left_out = |run: &pb::Run| !run.left_out.is_empty();
    let run = stage.server.run_when(&run.id, "left out", left_out).await;
    assert!(
        run.left_out[0].reason.contains("cpu was \"a\", now \"\""),
        "{:?}",
        run.left_out
    );
}

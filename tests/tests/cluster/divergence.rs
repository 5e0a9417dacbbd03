//! A bit flips in one worker's parameters. The state digests differ, and the run goes on with one state for all workers.

use std::path::PathBuf;

use fovea_proto::pb;
use fovea_proto::pb::run_event::Event;
use fovea_tests::faults::flip_bit;
use fovea_tests::{Cluster, synthetic_dataset, tensors};

fn spec(name: &str, workers: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        model: None,
        train: Some(pb::TrainSpec {
            epochs: Some(8),
            virtual_ranks: Some(3),
            batch: Some(4),
            learning_rate: Some(0.0005),
            digest_every: Some(2),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(workers),
            max: Some(workers),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(4),
            keep_last: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The result of a run that was disturbed.
struct Flipped {
    run: pb::Run,
    /// The worker in whose memory the bit was flipped.
    victim: String,
    /// Notes of the run that report differing states.
    notes: Vec<String>,
    /// The final checkpoint.
    file: Vec<u8>,
}

/// Trains with `workers`, and flips a bit in the last one's memory after the first checkpoint.
async fn flipped(cluster: &Cluster, name: &str, workers: u32) -> Flipped {
    let run = cluster.submit(spec(name, workers)).await;
    cluster
        .watch(&run.id, |event| matches!(event, Event::Checkpoint(_)))
        .await;
    let file = cluster.checkpoint(&run.id, 4).await;
    // Frozen, so the same after every step: it can be found in memory by its bytes.
    let weights = &tensors(&file)["conv1/7x7_s2.weight"][..256];
    let request = pb::GetRunRequest {
        run_id: run.id.clone(),
    };
    let now = cluster.runs().await.get(request).await.expect("the run");
    let victim = now.into_inner().workers.pop().expect("it has workers");
    let number = victim[1..].split('-').next().map(str::parse::<usize>);
    let Some(Ok(number)) = number else {
        panic!("{victim} is not called w0-, w1- and so on");
    };
    let places =
        flip_bit(cluster.workers[number].pid(), weights).expect("its memory can be written");
    assert!(places > 0, "the parameters were not found");
    let mut notes = Vec::new();
    let end = cluster
        .watch(&run.id, |event| {
            if let Event::Note(note) = event {
                notes.push(note.clone());
            }
            matches!(event, Event::Run(run) if run.phase() == pb::Phase::Completed)
        })
        .await;
    let Event::Run(run) = end else {
        unreachable!("only a run ends the wait")
    };
    notes.retain(|note| note.contains("differ"));
    let file = cluster.checkpoint(&run.id, run.total_steps).await;
    Flipped {
        run,
        victim,
        notes,
        file,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_outvoted_or_undone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir: PathBuf = dir.path().to_owned();
    let prepared = synthetic_dataset(&dir, 24, 64);
    let cluster = Cluster::start(&dir, 3);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);

    // Three workers: the one that differs is named, and adopts the state of the majority.
    let Flipped {
        run, victim, notes, ..
    } = flipped(&cluster, "three", 3).await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    let named = notes[0].contains(&format!("worker {victim}")) && notes[0].contains("majority");
    assert!(named, "{notes:?}");
    assert_eq!(run.generation, 2, "it was healed within one generation");

    // Two workers, no majority: the run rewinds to the last checkpoint and ends in the bits of an undisturbed run.
    let Flipped {
        run,
        notes,
        file: disturbed,
        ..
    } = flipped(&cluster, "two", 2).await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("has a majority"), "{notes:?}");
    assert!(run.generation >= 2);
    let one = cluster.submit(spec("one", 1)).await;
    let one = cluster.wait_completed(&one.id).await;
    let expected = cluster.checkpoint(&one.id, one.total_steps).await;
    assert!(
        tensors(&disturbed) == tensors(&expected),
        "the error was not undone"
    );
    let audit = cluster.fovea(&["runs", "audit", &run.id]);
    println!("{audit}");
}

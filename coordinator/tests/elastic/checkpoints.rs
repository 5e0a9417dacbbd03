//! Stored checkpoints: corrupt ones are found and quarantined, and old ones are removed.

use std::path::Path;

use fovea_proto::pb;
use fovea_proto::pb::checkpoint_chunk::Part;
use tonic::Code;

use super::{Phase, Stage, form, gather, spec_of};
use crate::common::*;

/// Changes one bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

impl Stage {
    async fn verify(&self, run: &pb::Run, step: Option<u64>) -> Vec<(u64, String)> {
        let request = pb::VerifyCheckpointsRequest {
            run_id: run.id.clone(),
            step,
        };
        let found = self.server.checkpoints().verify(request).await.unwrap();
        let found = found.into_inner().checkpoints.into_iter();
        found
            .map(|v| (v.checkpoint.unwrap().step, v.problem))
            .collect()
    }

    /// Reads a checkpoint to the end: how many bytes came, or why not all.
    async fn get(&self, run: &pb::Run, step: u64) -> Result<u64, tonic::Status> {
        let request = pb::GetCheckpointRequest {
            run_id: run.id.clone(),
            step: Some(step),
        };
        let mut stream = self.server.checkpoints().get(request).await?.into_inner();
        let mut bytes = 0;
        while let Some(chunk) = soon("a chunk", stream.message()).await? {
            if let Some(Part::Data(data)) = chunk.part {
                bytes += data.len() as u64;
            }
        }
        Ok(bytes)
    }

    async fn listed(&self, run: &pb::Run) -> Vec<u64> {
        let request = pb::ListCheckpointsRequest {
            run_id: run.id.clone(),
        };
        let listed = self.server.checkpoints().list(request).await.unwrap();
        let listed = listed.into_inner().checkpoints;
        listed.iter().map(|c| c.step).collect()
    }
}

fn file(step: u64, generation: u64) -> String {
    format!("step-{step:010}.g{generation}.safetensors")
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_by_verifying_and_by_reading() {
    let stage = Stage::new().await;
    let (run, at, _, [w0]) = stage.begin(spec_of(2, 1, 2), ["w0"]).await;
    for step in 1..=3 {
        stage.step(&w0, &at, step).await;
        stage
            .checkpoint(&[&w0], &at, step, &state(step as u32))
            .await;
    }
    let good = |step| (step, String::new());
    assert_eq!(stage.verify(&run, None).await, [good(1), good(2), good(3)]);

    let folder = stage.folder(&run);
    damage(&folder.join(file(2, 1)));
    assert_eq!(stage.verify(&run, Some(3)).await, [good(3)]);
    let found = stage.verify(&run, None).await;
    assert_eq!((&found[0], &found[2]), (&good(1), &good(3)));
    assert!(found[1].1.contains("SHA-256"), "{found:?}");
    assert_eq!(stage.listed(&run).await, [1, 3]);
    // It lies in the trash, for people to look at.
    eventually("the file in the trash", || {
        !stage.files(&run).contains(&file(2, 1)) && stage.trash().contains(&file(2, 1))
    })
    .await;
    refused(stage.get(&run, 2).await, Code::NotFound, "step 2");
    let request = pb::VerifyCheckpointsRequest {
        run_id: run.id.clone(),
        step: Some(2),
    };
    refused(
        stage.server.checkpoints().verify(request).await,
        Code::NotFound,
        "step 2",
    );

    // Whoever reads a file that was damaged since gets an error at the end; it is not served again.
    damage(&folder.join(file(3, 1)));
    refused(stage.get(&run, 3).await, Code::DataLoss, "corrupt");
    assert_eq!(stage.listed(&run).await, [1]);
    refused(stage.get(&run, 3).await, Code::NotFound, "step 3");
    // One that is gone may come back: it stays listed.
    let path = folder.join(file(1, 1));
    let elsewhere = folder.join("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    refused(stage.get(&run, 1).await, Code::Unavailable, "missing");
    assert_eq!(stage.listed(&run).await, [1]);
    std::fs::rename(&elsewhere, &path).unwrap();
    assert!(stage.get(&run, 1).await.is_ok());
    // The run goes on: its workers hold the state.
    let run = stage.server.run(&run.id).await;
    assert_eq!((run.phase(), run.generation), (Phase::Running, 1));
    stage.checkpoint(&[&w0], &at, 4, &state(4)).await;
    assert_eq!(
        stage.get(&run, 4).await.unwrap(),
        run_bytes(&stage, &run).await
    );
}

async fn run_bytes(stage: &Stage, run: &pb::Run) -> u64 {
    let run = stage.server.run(&run.id).await;
    run.checkpoints.last().unwrap().size_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_forms_from_a_damaged_one_forms_anew_from_the_one_before() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [mut w0, w1]) = stage.begin(spec_of(2, 1, 2), ["w0", "w1"]).await;
    for step in [2, 4] {
        stage
            .checkpoint(&[&w0, &w1], &at, step, &state(step as u32))
            .await;
    }
    drop(w1);
    let next = gather(&mut [&mut w0]).await;
    assert_eq!((next.generation, next.start_step), (2, 4));
    damage(&stage.folder(&run).join(file(4, 1)));
    // The worker fetches it.
    refused(stage.get(&run, 4).await, Code::DataLoss, "corrupt");
    let again = form(&mut [&mut w0]).await;
    assert_eq!((again.generation, again.start_step), (3, 2));
    assert_eq!(again.checkpoint.unwrap().step, 2);
    let forming = watch.until_in(Phase::Forming, 3).await;
    assert!(
        forming.reason.contains("checkpoint 4 is corrupt"),
        "{}",
        forming.reason
    );
    watch.until_in(Phase::Running, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_and_the_best_are_kept() {
    let stage = Stage::new().await;
    let mut spec = spec_of(2, 1, 2);
    spec.checkpoint = Some(pb::CheckpointSpec {
        keep_last: Some(1),
        keep_best: Some(pb::BestBy::Auc.into()),
        ..Default::default()
    });
    let (run, at, mut watch, [w0]) = stage.begin(spec, ["w0"]).await;
    let samples = run.validation_samples as u32;
    // The second epoch is the best, the third is worse again.
    for (epoch, good) in [(0, false), (1, true), (2, false)] {
        let step = u64::from(epoch + 1) * run.steps_per_epoch;
        stage.step(&w0, &at, step - 1).await;
        stage.step(&w0, &at, step).await;
        let mut message = scores(&at, epoch, 0..samples);
        if let (false, pb::worker_message::Message::Scores(scores)) = (good, &mut message) {
            for score in &mut scores.scores {
                score.probabilities.reverse();
            }
        }
        w0.send(message).await;
        let auc = watch.until_epoch(epoch).await.validation.unwrap().auc;
        assert_eq!(auc, Some(if good { 1.0 } else { 0.0 }));
        // One within the epoch, too.
        stage.checkpoint(&[&w0], &at, step - 1, &state(epoch)).await;
        stage.checkpoint(&[&w0], &at, step, &state(epoch)).await;
    }
    let (best, last) = (2 * run.steps_per_epoch, 3 * run.steps_per_epoch);
    assert_eq!(stage.listed(&run).await, [best, last]);
    let manifest = |step| file(step, 1).replace("safetensors", "json");
    let kept = [manifest(best), file(best, 1), manifest(last), file(last, 1)];
    eventually("only the kept files", || stage.files(&run) == kept).await;
}

//! `fovea submit`, `runs`, `run`, `cancel`, `pause` and `resume`.

use fovea_core::roster::beyond_tested;
use fovea_core::spec::{BestBy, CheckpointSpec, Head, ModelSpec, RunSpec};

use super::args::{Resume, Step, Submit};
use super::checkpoints::remark_store;
use super::follow::follow;
use super::format::{ago, bytes, date, now_ms, one_line, rate, share, without_event};
use super::narrate::{epoch_heading, epoch_line};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use super::weights::provide;
use super::workers::left_out_line;
use crate::client::Client;
use crate::error::Error;
use crate::runfile::{RunFile, Weights, resolve_weights};
use crate::view::{EvaluationInfo, Phase, RunInfo};
use fovea_core::count::count;

/// Patience, in seconds, of a watch that follows another command.
const PATIENCE_S: u64 = 300;

/// Reads the run file of a submission.
pub fn read_spec(command: &Submit) -> Result<(RunSpec, Weights), Error> {
    let mut file = RunFile::read(&command.file)?;
    for assignment in &command.overrides {
        file.set(assignment);
    }
    let spec = file.spec()?;
    let weights = resolve_weights(&file, &spec)?;
    Ok((spec, weights))
}

/// Submits a run, after its file of weights if it names one, and follows it if asked.
pub async fn submit(
    client: &Client,
    command: &Submit,
    mut spec: RunSpec,
    weights: &Weights,
    output: &Output,
) -> Result<(), Error> {
    provide(client, &mut spec, weights, output).await?;
    let run = client.submit(&spec).await?;
    output.record(&Record::Run(&run));
    output.line(accepted(&run));
    remark(&run, output);
    if !run.reason.is_empty() && !command.watch {
        output.line(format!(
            "it waits: {}",
            one_line(without_event(&run.reason))
        ));
    }
    if command.watch {
        return follow(client, &run.id, PATIENCE_S, output).await;
    }
    output.line(format!("follow it with: fovea watch {}", run.id));
    Ok(())
}

/// Remarks what may not be meant: a start from random weights, and more workers than were ever tested.
pub fn remark(run: &RunInfo, output: &Output) {
    let remarks = [from_random(&run.spec.model), beyond_tested(&run.spec)];
    for remark in remarks.into_iter().flatten() {
        output.remark(format!("note: {remark}"));
    }
}

/// The remark that a run starts from random weights, unless its strategy says so.
fn from_random(model: &ModelSpec) -> Option<String> {
    if !model.weights.is_empty() || model.strategy.is_some() {
        return None;
    }
    let start = "no model.weights are given, so training starts from random weights";
    Some(match model.frozen.len() {
        0 => start.to_owned(),
        frozen => format!(
            "{start}, and {} of model.frozen {} random: name weights, or give model.frozen = []",
            count(frozen, "layer", "layers"),
            if frozen == 1 { "stays" } else { "stay" },
        ),
    })
}

/// The line for an accepted run.
pub fn accepted(run: &RunInfo) -> String {
    format!(
        "run {} accepted: {} of {}, dataset {}, {}",
        run.id,
        count(run.spec.train.epochs, "epoch", "epochs"),
        count(run.steps_per_epoch, "step", "steps"),
        run.spec.dataset,
        count(
            run.spec.train.virtual_ranks,
            "virtual rank",
            "virtual ranks"
        ),
    )
}

/// Lists all runs.
pub async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let (runs, store_problem) = client.runs_and_store().await?;
    for run in &runs {
        output.record(&Record::Run(run));
    }
    if runs.is_empty() {
        output.line("no runs yet; `fovea submit run.toml` starts one");
    } else {
        output.lines(table(&runs, now_ms()).lines());
    }
    remark_store(&store_problem, output);
    Ok(())
}

/// The runs as a table. The last column has the reason why a run waits or failed.
pub fn table(runs: &[RunInfo], now_ms: u64) -> Table {
    // Of two classes it says little that AUC does not.
    let graded = runs.iter().any(|run| run.spec.model.classes > 2);
    let mut heads = vec!["run", "phase", ">step", ">epoch", ">AUC"];
    heads.extend(graded.then_some(">kappa"));
    heads.extend(["dataset", ">workers", "submitted", "reason"]);
    let mut table = Table::new(&heads);
    for run in runs {
        let last = run.last_epoch().map(|e| &e.validation);
        let auc = last.and_then(|v| v.auc);
        let kappa = last.and_then(|v| v.quadratic_kappa);
        let kappa = kappa.filter(|_| run.spec.model.classes > 2);
        let (step, epoch, dataset) = match &run.spec.evaluate {
            None => (
                format!("{}/{}", run.step(), run.total_steps),
                format!("{}/{}", run.epochs_done(), run.spec.train.epochs),
                run.spec.dataset.to_string(),
            ),
            Some(evaluate) => (
                "-".into(),
                "-".into(),
                format!("{} ({})", run.spec.dataset, evaluate.part),
            ),
        };
        let mut row = vec![
            run.id.clone(),
            run.phase.as_str().into(),
            step,
            epoch,
            share(auc),
        ];
        row.extend(graded.then(|| share(kappa)));
        row.extend([
            dataset,
            run.workers.len().to_string(),
            ago(run.submitted_at_ms, now_ms),
            reason(run),
        ]);
        table.row(row);
    }
    table
}

/// Why a run waits or failed, and which workers are left out, on one line.
fn reason(run: &RunInfo) -> String {
    let mut parts = Vec::new();
    if !run.reason.is_empty() {
        parts.push(one_line(without_event(&run.reason)));
    }
    // What a queued run waits for names them.
    if run.phase != Phase::Queued {
        parts.extend(
            run.left_out
                .iter()
                .map(|l| format!("left out: {} ({})", l.worker, l.trouble)),
        );
    }
    parts.join("; ")
}

/// Shows one run.
pub async fn show(client: &Client, run_id: &str, output: &Output) -> Result<(), Error> {
    let run = client.run(run_id).await?;
    output.record(&Record::Run(&run));
    output.lines(details(&run, now_ms()));
    Ok(())
}

/// A run with its settings, results and checkpoints.
pub fn details(run: &RunInfo, now_ms: u64) -> Vec<String> {
    let spec = &run.spec;
    let mut lines = Vec::new();
    let mut field = |what: &str, text: String| lines.push(format!("{what:<12}{text}"));
    field("run", run.id.clone());
    field(
        "phase",
        if run.reason.is_empty() {
            run.phase.as_str().into()
        } else {
            format!("{}: {}", run.phase.as_str(), without_event(&run.reason))
        },
    );
    let by = match &*run.submitted_by {
        "" => String::new(),
        name => format!(" by {name}"),
    };
    field("submitted", ago(run.submitted_at_ms, now_ms) + &by);
    if !run.phase.has_ended() {
        field("priority", priority(run));
    }
    if let Some(evaluate) = &spec.evaluate {
        field(
            "evaluates",
            format!(
                "step {} of {} on {} ({})",
                evaluate.step, evaluate.run, spec.dataset, evaluate.part
            ),
        );
        field("images", run.validation_samples.to_string());
        if !run.workers.is_empty() {
            field("workers", run.workers.join(", "));
        }
        if run.phase == Phase::Completed {
            field(
                "figures",
                format!(
                    "fovea evaluate {} --split {} --dataset {}",
                    evaluate.run, evaluate.part, spec.dataset
                ),
            );
        }
        return lines;
    }
    if !run.group.is_empty() {
        field("group", run.group.clone());
    }
    if let Some(fold) = spec.fold {
        field(
            "fold",
            format!("{fold}, held out instead of the validation split"),
        );
    }
    field(
        "dataset",
        format!(
            "{} ({}), {} to train on, {} held out",
            spec.dataset,
            run.dataset_digest.chars().take(12).collect::<String>(),
            count(run.train_samples, "image", "images"),
            run.validation_samples,
        ),
    );
    let m = &spec.model;
    field(
        "model",
        format!(
            "GoogLeNet, {} classes{}, positive from grade {}, {}",
            m.classes,
            match (m.classes, m.head) {
                (4, Head::Softmax) => " (grades 3 and 4 are one)",
                (4, Head::Ordinal) => " (grades 3 and 4 are one), an ordinal head",
                (_, Head::Softmax) => "",
                (_, Head::Ordinal) => ", an ordinal head",
            },
            m.positive_from,
            if m.weights.is_empty() {
                "from scratch".into()
            } else {
                let digest: String = m.weights_sha256.chars().take(12).collect();
                match &*digest {
                    "" => format!("from {}", m.weights),
                    digest => format!("from {} ({digest})", m.weights),
                }
            },
        ),
    );
    field("strategy", m.strategy_in_words());
    if !m.frozen.is_empty() {
        field("frozen", m.frozen.join(", "));
    }
    let t = &spec.train;
    field(
        "training",
        format!(
            "{} x batch {}, learning rate {}, {}",
            count(t.virtual_ranks, "virtual rank", "virtual ranks"),
            t.batch,
            t.learning_rate,
            count(t.epochs, "epoch", "epochs"),
        ),
    );
    field("checkpoints", kept(&spec.checkpoint));
    field(
        "progress",
        match &run.progress {
            Some(p) => format!(
                "step {}/{}, loss {:.4}, {}",
                run.step(),
                run.total_steps,
                p.loss,
                rate(p.images_per_s)
            ),
            None => format!("step {}/{}", run.step(), run.total_steps),
        },
    );
    if !run.workers.is_empty() {
        field(
            "workers",
            format!("{} (generation {})", run.workers.join(", "), run.generation),
        );
    }
    for left_out in &run.left_out {
        field("left out", left_out_line(left_out));
    }
    if let Some(first) = run.epochs.first() {
        lines.push(String::new());
        lines.push(epoch_heading(first).into());
        for epoch in &run.epochs {
            let stored = run.checkpoints.iter().any(|c| c.step == epoch.step);
            lines.push(epoch_line(epoch, t.epochs, stored));
        }
    }
    if !run.evaluations.is_empty() {
        lines.push(String::new());
        lines.push("evaluated".into());
        lines.extend(run.evaluations.iter().map(evaluation_line));
    }
    if let Some(newest) = run.checkpoints.last() {
        lines.push(String::new());
        lines.push(format!(
            "{}, the newest of step {} ({}): fovea checkpoint get {} newest",
            count(run.checkpoints.len(), "checkpoint", "checkpoints"),
            newest.step,
            bytes(newest.bytes),
            run.id
        ));
    }
    lines
}

fn evaluation_line(evaluation: &EvaluationInfo) -> String {
    let EvaluationInfo {
        run,
        step,
        dataset,
        part,
        at_ms,
        by,
        generation: _,
        dataset_digest: _,
        test_samples: _,
        rotations,
    } = evaluation;
    let by = match &**by {
        "" => String::new(),
        name => format!(" by {name}"),
    };
    format!(
        "  step {step} on {dataset} ({part}{}), {}{by}: {run}",
        if *rotations { ", four rotations" } else { "" },
        date(*at_ms)
    )
}

/// The priority in force, and that of the submission if it is another one.
fn priority(run: &RunInfo) -> String {
    let RunInfo { priority, spec, .. } = run;
    match *priority == spec.priority {
        true => priority.to_string(),
        false => format!("{priority} (submitted with {})", spec.priority),
    }
}

/// Which checkpoints are kept. Older ones were removed on purpose.
fn kept(spec: &CheckpointSpec) -> String {
    let best = match spec.keep_best {
        BestBy::None => "",
        BestBy::Auc => " and the one of the best AUC",
        BestBy::Loss => " and the one of the lowest validation loss",
        BestBy::Kappa => " and the one of the best kappa",
    };
    match spec.keep_last {
        0 => "all are kept".into(),
        1 => format!("the newest{best} is kept"),
        n => format!("the newest {n}{best} are kept"),
    }
}

/// Cancels a run.
pub async fn cancel(client: &Client, run_id: &str, output: &Output) -> Result<(), Error> {
    let run = client.cancel(run_id).await?;
    output.record(&Record::Run(&run));
    output.line(match run.phase {
        Phase::Cancelled => format!("run {run_id} is cancelled"),
        _ => format!("run {run_id} will stop at its next step, with a checkpoint"),
    });
    Ok(())
}

/// Pauses a run.
pub async fn pause(client: &Client, run_id: &str, output: &Output) -> Result<(), Error> {
    let run = client.pause(run_id).await?;
    output.record(&Record::Run(&run));
    output.line(match run.phase {
        Phase::Paused => format!("run {run_id} is paused"),
        _ => format!("run {run_id} will pause at its next step, with a checkpoint"),
    });
    output.line(format!("continue it with: fovea resume {run_id}"));
    Ok(())
}

/// Resumes a run, and follows it if asked.
pub async fn resume(client: &Client, command: &Resume, output: &Output) -> Result<(), Error> {
    let chosen = command.checkpoint.and_then(Step::number);
    let run = client.resume(&command.run, chosen).await?;
    output.record(&Record::Run(&run));
    output.line(resumed(&run, chosen));
    if command.watch {
        return follow(client, &run.id, PATIENCE_S, output).await;
    }
    output.line(format!("follow it with: fovea watch {}", run.id));
    Ok(())
}

/// The line for a resumed run.
pub fn resumed(run: &RunInfo, chosen: Option<u64>) -> String {
    let from = chosen.or_else(|| run.checkpoints.last().map(|c| c.step));
    match from {
        Some(step) => format!(
            "run {} continues from the checkpoint of step {step}/{}",
            run.id, run.total_steps
        ),
        None => format!("run {} has no checkpoint and starts over", run.id),
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::spec::Strategy;

    use super::*;

    #[test]
    fn a_start_from_random_weights_is_remarked_unless_it_is_asked_for() {
        let mut model = ModelSpec::default();
        let remark = from_random(&model).unwrap();
        assert!(remark.contains("2 layers of model.frozen stay random"));
        model.frozen.truncate(1);
        let remark = from_random(&model).unwrap();
        assert!(remark.contains("1 layer of model.frozen stays random"));
        model.frozen.clear();
        let remark = from_random(&model).unwrap();
        assert!(remark.ends_with("starts from random weights"), "{remark}");
        model.strategy = Some(Strategy::FromScratch);
        assert_eq!(from_random(&model), None);
        model = ModelSpec {
            weights: "bvlc".into(),
            ..ModelSpec::default()
        };
        assert_eq!(from_random(&model), None);
    }
}

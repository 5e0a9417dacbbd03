//! Clients and workers that leave in the middle of something.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_scheduled_although_whoever_submitted_it_has_left() {
    let place = Place::new();
    let server = place.fresh_server().await;
    for attempt in 0..60u64 {
        let patience = Duration::from_micros(attempt * 200);
        let _ = tokio::time::timeout(patience, server.submit(small_spec())).await;
    }
    // What was accepted has an actor: it says what it waits for.
    let accepted = soon("all runs", async {
        loop {
            let request = pb::ListRunsRequest::default();
            let runs = server.runs().list(request).await.unwrap().into_inner().runs;
            if runs
                .iter()
                .all(|run| run.reason.contains("needs 1 worker;"))
            {
                return runs.len();
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    println!("{accepted} of 60 runs were accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_resumed_while_its_actor_closes_is_scheduled() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let mut runs = Vec::new();
    for _ in 0..60 {
        runs.push(server.submit(small_spec()).await.unwrap());
    }
    let mut ended = Vec::new();
    for run in &runs {
        cancel(&server, &run.id).await;
        ended.push(Instant::now());
    }
    // An ended run's actor closes after 2 s, by the clock. The resumes are spread around that moment.
    for (n, (run, ended)) in (0..).zip(runs.iter().zip(ended)) {
        tokio::time::sleep_until(ended + Duration::from_millis(1_700 + 10 * n)).await;
        resume(&server, &run.id).await;
    }
    for run in &runs {
        server
            .run_when(&run.id, "a live run", |run| {
                run.reason.contains("needs 1 worker;")
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_opens_another_session_during_an_offer_is_not_stranded() {
    let place = Place::new();
    let server = place.fresh_server().await;
    for attempt in 0..20 {
        let name = format!("w{attempt}");
        let first = Worker::join(&server, &name).await;
        let run = server.submit(small_spec()).await.unwrap();
        let mut watch = server.watch(&run.id).await;
        // Without waiting for the assignment, which may or may not have been on its way.
        drop(first);
        let mut second = Worker::join(&server, &name).await;
        let forms = async {
            let mut at: Option<pb::Assignment> = None;
            loop {
                match second.next().await {
                    Down::Assignment(assignment) => {
                        second.ready(&assignment).await;
                        at = Some(assignment);
                    }
                    Down::Abort(abort) => match &at {
                        Some(at) if at.generation == abort.generation => second.aborted(at).await,
                        _ => {}
                    },
                    _ => {}
                }
            }
        };
        tokio::select! {
            _ = watch.until(Phase::Running) => {}
            () = forms => unreachable!("it does not end"),
        }
        cancel(&server, &run.id).await;
    }
}

//! An evaluation by two workers, over loopback.

use fovea_core::run::Outcome;

use super::*;
use crate::collective::TcpCollective;
use crate::data::hosted;
use crate::testing::{PATIENCE, peers, wait_until};

/// The first worker has its scores long before the second, which is not lost for that.
#[test]
fn who_has_scored_waits_for_one_that_needs_much_longer_than_a_peer_may_be_silent() {
    let silence = Duration::from_millis(100);
    let spec = spec("");
    let plan = tiny().plan(&spec);
    let total_steps = plan.steps_per_epoch() * 2;
    let peers = peers(2);
    let roster = peers.roster(1, &[0, 1], total_steps);
    let progress = [0, 1].map(|_| Progress::default());
    let score = |rank: usize| -> Result<Vec<Score>, TrainingError> {
        let (member, progress) = (&roster.members[rank], &progress[rank]);
        let channels = peers.meshes[rank].connect(
            &roster,
            [1; 16],
            rank,
            PATIENCE,
            &|| false,
            progress.waiting(),
        )?;
        let waiting = progress.waiting().clone();
        let mut collective = TcpCollective::new(&roster, rank, channels, silence, waiting);
        let manner = Manner {
            scoring: [Duration::ZERO, 3 * silence][rank],
            ..Manner::default()
        };
        let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
        let mut state = State {
            device: Box::new(Pretending::new(&layout, &manner)),
            step: total_steps,
            parts: Parts::default(),
        };
        let (data, device) = (tiny().data(), OnDevice::default());
        let steps = total_steps..total_steps;
        let loader = Loader::start(
            data,
            plan.clone(),
            spec.clone(),
            member,
            steps,
            true,
            device,
        );
        let training = Training {
            spec: &spec,
            plan: &plan,
            rank,
            ranks: 2,
            hosted: hosted(member),
            next_epoch: 1,
            stored_step: total_steps,
            total_steps,
            state: &mut state,
            collective: &mut collective,
            loader: loader.unwrap(),
            control: &Control::default(),
            progress,
            profile: None,
        };
        let mut found = Vec::new();
        let outcome = training.run(&mut |event| match event {
            TrainingEvent::Scores { scores, .. } => found = scores,
            other => panic!("{other:?}"),
        })?;
        assert_eq!(outcome, Outcome::Completed { step: total_steps });
        Ok(found)
    };
    std::thread::scope(|scope| {
        let [quick, slow] = [0, 1].map(|rank| scope.spawn(move || score(rank)));
        // To the coordinator it is one that waits.
        wait_until("waiting for the other", || {
            progress[0].waiting().on() == Some(1) && progress[0].ticks() > 0
        });
        let [quick, slow] = [quick, slow].map(|scored| scored.join().unwrap().unwrap());
        let all = 0..tiny().data().samples()[1] as u32;
        assert!(quick.iter().map(|score| score.sample).eq(all));
        assert_eq!(quick, slow);
    });
}

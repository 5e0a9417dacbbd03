//! What becomes of checkpoints that were stored before the journal had their run (`store::Unjournalled`).
//!
//! The journal decides. A run that it has keeps its checkpoint. What a request has copied for a run that was refused is removed.
//! What a start finds is moved to the trash: the journal may have been restored from a backup meanwhile. While the journal or
//! the store cannot tell, everything stays as it is, and the next start asks again.

use tracing::warn;

use crate::blocking::blocking;
use crate::journal::Journal;
use crate::store::{CheckpointStore, StoreError, Unjournalled};

/// What is done with the checkpoint of a run that the journal does not have.
type Undo = fn(&CheckpointStore, &Unjournalled) -> Result<(), StoreError>;

/// After a run was accepted or refused.
pub(crate) async fn settle(journal: &Journal, store: &CheckpointStore, of: Unjournalled) {
    decide(journal, store, of, CheckpointStore::remove_marked).await;
}

/// At the start, before any run goes on.
pub(crate) async fn settle_all(journal: &Journal, store: &CheckpointStore) {
    let listing = store.clone();
    match blocking(move || listing.marked()).await {
        Ok(Ok(marked)) => {
            for of in marked {
                decide(journal, store, of, CheckpointStore::discard_marked).await;
            }
        }
        Ok(Err(error)) => {
            warn!(%error, "store.unswept: copies for runs that were not accepted cannot be listed: {error}");
        }
        // The panic is in the log.
        Err(_) => {}
    }
}

async fn decide(journal: &Journal, store: &CheckpointStore, of: Unjournalled, undo: Undo) {
    let Some(number) = of.run.number() else {
        return;
    };
    let unsettled = |problem: String| {
        let id = &of.run;
        warn!(
            run_id = %id,
            "store.unswept: whether {id} was accepted is not settled before the next start, until then its copy of a checkpoint \
             stays: {problem}"
        );
    };
    let accepted = match journal.run(number).await {
        Ok(run) => run.is_some_and(|run| run.id == of.run),
        Err(error) => return unsettled(error.to_string()),
    };
    let (store, which) = (store.clone(), of.clone());
    let settled = blocking(move || match accepted {
        true => store.unmark(&which),
        false => undo(&store, &which),
    });
    match settled.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => unsettled(error.to_string()),
        Err(panicked) => unsettled(panicked.to_string()),
    }
}

//! What `fovea --help` says beside the list of commands.

/// Also at the end of `fovea -h`.
pub const EXAMPLES: &str = "\
Examples:
  fovea prepare eyepacs --out eyepacs-224      photographs and labels to a dataset
  fovea dataset add eyepacs-224                give it to the coordinator
  fovea submit run.toml --watch                train
  fovea pause dr-1                             stop for now, with a checkpoint
  fovea resume dr-1 --watch                    go on where a run stopped
  fovea runs audit dr-1                        did each epoch use every image once?
  fovea checkpoint verify dr-1                 are the stored checkpoints whole?
  fovea checkpoint get dr-1 newest -o dr.safetensors
  fovea local -n 2 --dataset eyepacs-224 run.toml
                                               all of it on this machine, no coordinator needed";

/// The fields of [`super::output::Record`], for who reads them with a program.
pub const JSON_HELP: &str = "\
With --json, each line of standard output is one JSON object; its \"type\" says what it is:
  run          a run: id, phase (queued, forming, running, finishing, paused, completed, failed,
               cancelled), reason, generation, workers, steps_per_epoch, total_steps,
               train_samples, validation_samples, dataset_digest, submitted_at_ms, progress,
               epochs, checkpoints, spec
  step         run, step, loss, images, images_per_s, learning_rate, phases
  epoch        run, epoch (from 0), step, train_loss, validation {samples, positives, loss,
               accuracy, auc, sensitivity, specificity, quadratic_kappa, confusion}
  checkpoint   run, step, generation, bytes, sha256, stored_at_ms, fingerprint, path (when fetched)
  verified     run, ok, problem (empty when ok), and the fields of a checkpoint
  audit        run, clean, clean_epochs, begun_epochs, epochs (in the whole run), train_samples,
               samples_used, steps, total_steps, ledger_bytes, problems (at most 100)
  dataset      name, digest, image_size, train_samples, validation_samples, train_grades,
               validation_grades, packs, size_bytes, already_there (after add)
  prepared     dir, digest, train, validation, patients, packs, excluded, warnings
  synthetic    dir, patients, images
  note         run, text
  reconnecting run, reason, attempt, wait_ms
  result       run, phase, reason, step, total_steps, epochs, validation (of the last epoch),
               checkpoint (the newest), and after `local` model and metrics (paths)
  error        exit_code, message";

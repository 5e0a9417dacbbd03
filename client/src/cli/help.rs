//! The texts of `fovea --help` after the list of commands.

/// Examples, which `fovea -h` shows, too.
pub const EXAMPLES: &str = "\
Examples:
  fovea prepare eyepacs --out eyepacs-224      photographs and labels to a dataset
  fovea dataset add eyepacs-224                send it to the coordinator, or repair it there
  fovea weights add bvlc_googlenet.caffemodel  the weights that runs start from
  fovea advise eyepacs-224                     which transfer strategy suits it?
  fovea submit run.toml --watch                train
  fovea submit run.toml --folds 5              cross-validate: a group of runs
  fovea sweep sweep.toml                       which settings are best? A group, with halving
  fovea group evaluate dr-g7                   mean and spread over a group's runs
  fovea evaluate dr-1                          how good is the model, and how sure is that?
  fovea baseline eyepacs-512 --run dr-1        is it better than classical features?
  fovea report dr-1                            curves, ROC and all figures as one HTML file
  fovea predict dr-1 photographs -o scores.csv score photographs with the run's model
  fovea export dr-1                            the model as ONNX, for other programs
  fovea tensorboard dr-1 --out events          its curves for TensorBoard
  fovea pause dr-1                             stop for now, with a checkpoint
  fovea resume dr-1 --watch                    continue where a run stopped
  fovea workers                                which workers are there, and what do they do?
  fovea top                                    runs, queue, workers and disk on one screen
  fovea queue                                  which runs wait, in which order, and why?
  fovea runs audit dr-1                        did each epoch use every image once?
  fovea checkpoint verify dr-1                 are the stored checkpoints whole?
  fovea admin verify                           is everything that the coordinator stores whole?
  fovea runs rm dr-1 --with-checkpoints        remove a run and its checkpoints
  fovea checkpoint get dr-1 newest -o dr.safetensors
  fovea certs init --cluster eyes              make the certificates of a cluster with TLS
  fovea token create --role submitter --name ann
  fovea login                                  keep a token for a coordinator with TLS
  fovea local -n 2 --dataset eyepacs-224 run.toml
                                               train on this machine, no coordinator needed";

/// The fields of [`super::record::Record`], for scripts.
pub const JSON_HELP: &str = "\
With --json, each line of standard output is one JSON object; \"type\" is its kind:
  run          a run: id, phase (queued, forming, running, finishing, paused, completed, failed,
               cancelled), reason, generation, workers, steps_per_epoch, total_steps,
               train_samples, validation_samples, group (empty: submitted alone), dataset_digest,
               submitted_at_ms, submitted_by (empty without TLS), began_at_ms, ended_at_ms (0: not yet), most_workers,
               scored (samples, in the evaluation under way), priority (in force), progress, pipeline {steps, size, digest, recipe} or null,
               epochs, checkpoints, evaluations, left_out [{worker, run, trouble (memory, disk, data, content,
               device, system), reason, for_ms, again_in_ms}], spec
  worker       a worker: id, state (idle, preparing, training, waiting, barred, left_out, leaving),
               reason, host, address, device, version, host_bytes, gpu_bytes, gpu_free_bytes (what it
               can use), run, first_virtual_rank, virtual_ranks, last_seen_ms, connected_ms, left_out,
               token_id (with which it joined; empty if its certificate is not by a token), step_ms (mean of
               its last steps), wait_ratio (the part of a step in which it waits for others, 0 to 1),
               gpu_used_bytes (by all processes), resident_bytes (of its process), each null where it is not known
  queued       a queued run, in the order of the queue: run, priority, place (raised by waiting), submitted_by,
               min_workers, max_workers, waited_ms, waiting (why)
  worker_denied     name, denied (false: let in again), sessions (processes that were disconnected)
  denied       name, reason, since_ms, by
  identity     cluster, role, name, token_id, token_expires_at_ms (empty without TLS)
  token        id, role, name, created_at_ms, expires_at_ms, created_by, uses, used, last_used_at_ms,
               and after create token
  step         run, step, loss, images, images_per_s, learning_rate, phases
  epoch        run, epoch (from 0), step, train_loss, validation {samples, positives, loss,
               accuracy, auc, sensitivity, specificity, quadratic_kappa, confusion}
  checkpoint   run, step, generation, bytes, sha256, stored_at_ms, fingerprint, path (when fetched),
               where (local, remote, both, nowhere; listed by a coordinator with an object store)
  verified     run, ok, state (ok, missing, unreadable, corrupt), problem (empty when ok),
               manifest_state, manifest_problem, and the fields of a checkpoint
  verify_progress   read_bytes, total_bytes, what (every 30 s)
  verify_problem    what, state (also unlisted), problem, action
  verify_summary    checkpoints, packs, weights, objects, read_bytes, problems
  backup       path, bytes, sha256, created_at_ms, runs, live_runs, datasets
  removed      kind (run, checkpoint, dataset, weights), name (of a checkpoint RUN/STEP),
               checkpoints, freed_bytes
  not_removed  kind, name, exit_code, message
  audit        run, clean, clean_epochs, begun_epochs, epochs (in the whole run), train_samples,
               samples_used, steps, total_steps, ledger_bytes, problems (at most 100)
  evaluation   run, step, dataset, dataset_digest, part, rotations (each score is the mean over the four
               rotations of a photograph), chosen_here (thresholds were chosen on the same
               photographs), uses (of this part by the run, or of the test part in it), shared (photographs
               of another dataset that the run's own has, too: own, of, trained, chosen, test, each of
               these {content, names (by these alone), other_content}; or null), samples, patients, positives, draws,
               auc, kappa, accuracy, brier, calibration_error, recall (by class), each {value, low,
               high, method (bootstrap, wilson, none: seldom defined, same: in all
               draws), undefined} or null; points, confusion, roc, reliability, fellow_eye
  baseline     name, features, classifier, kernel (of an SVM), chosen {parameters, criterion (auc, kappa), value,
               samples}, dataset, dataset_digest, part, and the fields of an evaluation from samples on
  compared     name, kind (baseline, run, scores), of (step of a run, or file), auc, kappa, sensitivity and
               specificity at 0.5, calibration_error, difference {to, auc} or null (of the AUC to that of the model
               `to`, with the interval of the difference)
  group        id, name, submitted_at_ms, submitted_by, runs [{run, variant (from 0), fold {index, of} or null, seed,
               phase (null: removed)}], deciding; of a sweep variants [settings], selection {by, halving {after,
               keep_one_of}, patience}
  planned_run  name, variant (from 0), settings, fold, seed, epochs: of `fovea sweep --dry-run`
  group_figures     group, runs (completed), of, spread {auc, kappa, accuracy, brier, calibration_error,
               sensitivity, specificity (at 0.5), each {runs, mean, sd, min, max} or null}, after the
               last epoch
  group_evaluation  group, of a sweep variant (from 1) and settings, dataset, dataset_digest, part, runs, left_out (runs), spread (as above), pooled
               [{seed, and the fields of an evaluation from samples on}]; an evaluation of each run
               comes before it
  group_report      group, path, bytes
  report       run, path, bytes
  prediction   model (the run), step, run (that scored), photographs, unreadable, path (null: none), maps (folder, or null)
  export       model, path, bytes, classes
  tensorboard  run, path, bytes, steps, epochs
  advice       dataset, photographs (of training), strategy, settings {key: value as TOML}, reasons, remarks
  dataset      name, digest, image_size, train_samples, validation_samples, test_samples,
               train_grades, validation_grades, test_grades, packs, size_bytes, problem (empty when
               none is known), preprocessing, pipeline (its digest), scale, and after add outcome (added, unchanged, repaired), repaired_packs,
               repaired_files, already_there
  weights      name, sha256, size_bytes, added_at_ms, format (caffemodel, safetensors), layers
               {name, shape}, ignored {name, reason}, used_by (runs), problem, and after add outcome
  prepared     dir, digest, pipeline {steps, size, digest, recipe}, scale, train, validation, test, patients (of
               each), packs, excluded, warnings
  synthetic    dir, patients, images
  note         run, event (its name, such as worker.evicted, or null), text
  reconnecting run, cause (away, limit), reason, attempt, wait_ms
  result       run, phase, reason, step, total_steps, epochs, validation (of the last epoch),
               checkpoint (the newest), and after `local` model, metrics and
               report (paths)
  certificate  path, identity (null for a CA's), ca, valid_from_s, valid_until_s, issuer, key_sha256,
               hosts
  error        exit_code, message";

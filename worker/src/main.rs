//! `fovea-worker`: configuration, signals, listener, device thread, link, agent; ends when asked to.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;
use fovea_core::count::count;
use fovea_core::ids::WorkerId;
use fovea_core::machine::Machine;
use fovea_dataset::make_private;
use fovea_predict::SOME_UNREADABLE;
use fovea_security::{Role, Tls, install_provider};
use fovea_service::ops::{self, Ops};
use fovea_service::supervisor::{self, Started};
use fovea_service::{Shutdown, VERSION, init_logging, leave, warn_misspelt};
use fovea_traces::{Resource, Traces};
use fovea_worker::advertise;
use fovea_worker::agent::{Agent, Identity};
use fovea_worker::cache;
use fovea_worker::collective::Mesh;
use fovea_worker::config::{Cli, Command, WorkerConfig};
use fovea_worker::context::Context;
use fovea_worker::device::{Device, TorchDevice};
use fovea_worker::devices::report;
use fovea_worker::features::{self, Features};
use fovea_worker::fingerprint;
use fovea_worker::gpu;
use fovea_worker::gpu_check;
use fovea_worker::hits::CacheHits;
use fovea_worker::job::DeviceThread;
use fovea_worker::join::Joining;
use fovea_worker::link::{self, Coordinator, random_u32};
use fovea_worker::machine;
use fovea_worker::memory;
use fovea_worker::meter;
use fovea_worker::own_kernels;
use fovea_worker::predict::{self, Predict};
use fovea_worker::segments;
use fovea_worker::threads::EXIT_HUNG;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Why the worker ends, with the exit code that --help documents.
struct Failure(u8, String);

/// How long the driver may take to say how much memory the GPU has.
const GPU_ANSWER: Duration = Duration::from_secs(20);
/// How often a long computation says how far it is.
const SAID_EVERY: Duration = Duration::from_secs(10);
/// How long the last spans may take to the collector.
const LAST_SPANS: Duration = Duration::from_secs(1);
/// How long blocking calls may take when the worker ends.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

fn main() {
    install_provider();
    let cli = Cli::parse();
    let code = match start(&cli) {
        Ok(()) => 0,
        Err(Failure(code, message)) => {
            eprintln!("fovea-worker: {message}");
            code
        }
    };
    // If standard output fails here, nobody is left to report it to.
    let _ = std::io::stdout().flush();
    // The device's thread may compute still, where it did not end in time.
    leave(code.into())
}

fn start(cli: &Cli) -> Result<(), Failure> {
    let config = cli.config().map_err(|e| Failure(2, e.to_string()))?;
    if cli.dump_config {
        let text = toml::to_string(&config).map_err(|e| Failure(1, e.to_string()))?;
        print!("{text}");
        return Ok(());
    }
    match &cli.command {
        Some(Command::Features(of)) => return features(of, &config),
        Some(Command::Devices {
            check,
            time,
            images,
        }) => {
            print!("{}", report(gpu::libraries()));
            return match *check {
                true => check_kernels(&config, *images, time.unwrap_or(0)),
                false => Ok(()),
            };
        }
        Some(Command::Health { live }) => {
            return ops::command(&config.ops_listen, *live)
                .map_err(|e| Failure(e.exit_code(), e.to_string()));
        }
        Some(Command::Predict(command)) => return predicted(command, &config),
        None => {}
    }
    init_logging(config.log_format, &config.log_level).map_err(|e| Failure(2, e.to_string()))?;
    warn_misspelt::<WorkerConfig>(std::env::vars());
    // Photographs of patients: for the owner alone. A folder that is there keeps its mode.
    make_private(&config.data_dir).map_err(|e| {
        let dir = config.data_dir.display();
        Failure(4, format!("data_dir {dir} cannot be used: {e}"))
    })?;
    // Before the first tensor is made.
    let place =
        gpu::choose(&config.device, config.local_rank).map_err(|e| Failure(2, e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure(1, e.to_string()))?;
    let ended = runtime.block_on(run(config, place));
    // A blocking call that hangs must not keep the process.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    ended
}

/// Computes features on the device that a worker would use, and says now and then how far it is.
fn features(of: &Features, config: &WorkerConfig) -> Result<(), Failure> {
    let place =
        gpu::choose(&config.device, config.local_rank).map_err(|e| Failure(2, e.to_string()))?;
    let mut said = Instant::now();
    let mut done = |number: usize, all: usize| {
        if number == all || said.elapsed() > SAID_EVERY {
            eprintln!("{number} of {all} photographs");
            said = Instant::now();
        }
    };
    features::write(of, place, &mut done).map_err(|e| Failure(1, e.to_string()))
}

fn predicted(command: &Predict, config: &WorkerConfig) -> Result<(), Failure> {
    let device = command.device.as_ref().unwrap_or(&config.device);
    // Before the first tensor is made.
    let place = gpu::choose(device, config.local_rank).map_err(|e| Failure(2, e.to_string()))?;
    match predict::run(command, place) {
        Ok(0) => Ok(()),
        Ok(unreadable) => Err(Failure(
            SOME_UNREADABLE,
            format!(
                "{} could not be read; the table says why",
                count(unreadable as u64, "photograph", "photographs")
            ),
        )),
        Err(error) => Err(Failure(error.exit_code(), error.to_string())),
    }
}

/// Compares our kernels with libtorch's operations on a GPU, up to a step of so many `images`, prints the differences, and times
/// `steps` steps of each.
fn check_kernels(config: &WorkerConfig, images: Option<u32>, steps: u32) -> Result<(), Failure> {
    init_logging(config.log_format, &config.log_level).map_err(|e| Failure(2, e.to_string()))?;
    let place =
        gpu::choose(&config.device, config.local_rank).map_err(|e| Failure(2, e.to_string()))?;
    if !place.is_cuda() {
        let message = "devices --check compares kernels on a GPU, and there is none to use";
        return Err(Failure(1, message.into()));
    }
    gpu::make_current(place).map_err(|e| Failure(1, e.to_string()))?;
    let folder = own_kernels::folder(&config.data_dir);
    let images = match images {
        Some(images) => images as usize,
        None => gpu_check::images_for(gpu::free_bytes().unwrap_or(0)),
    };
    let checked = gpu_check::check(place, &folder, images);
    let (Ok(report) | Err(report)) = &checked;
    print!("{report}");
    if checked.is_err() {
        return Err(Failure(1, "the kernels and libtorch differ".into()));
    }
    if steps > 0 {
        let times = gpu_check::times(place, &folder, steps);
        print!("{}", times.map_err(|e| Failure(1, e.to_string()))?);
    }
    Ok(())
}

async fn run(config: WorkerConfig, place: tch::Device) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals()
        .and_then(|shutdown| {
            let limit = Duration::from_secs(config.stop_timeout_s);
            shutdown.exit_within(limit, EXIT_HUNG, "stop_timeout_s")?;
            Ok(shutdown)
        })
        .map_err(|e| Failure(1, format!("cannot listen for signals: {e}")))?;
    let host = hostname();
    let Some(Certified { tls, joining }) = certified(&config, &host, &shutdown).await? else {
        info!("worker.stopped: fovea-worker has stopped before it could join");
        return Ok(());
    };
    let own = tokio::select! {
        own = own_kernels::used(config.gpu_kernels, place, &config.data_dir) => own,
        () = shutdown.wait() => {
            info!("worker.stopped: fovea-worker has stopped before it could join");
            return Ok(());
        }
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| Failure(3, format!("cannot listen on {}: {e}", config.listen)))?;
    let mut tasks = JoinSet::new();
    let mesh =
        Mesh::start(listener, tls.clone(), &mut tasks).map_err(|e| Failure(3, e.to_string()))?;
    let (cache, images) = (config.cache_bytes(), config.images_bytes());
    let hits = CacheHits::default();
    let of_activations = hits.activations.clone();
    let machine = fingerprint::machine(place, own);
    let kernels = own.then(|| own_kernels::folder(&config.data_dir));
    // Measured when the first run begins: later, memory that libtorch keeps for reuse would count as used.
    let free = OnceLock::new();
    let make = Box::new(move |spec: &_, layout: &_, image_size: usize| {
        let (cache, images) = match place.is_cuda() {
            true => gpu::budgets(*free.get_or_init(gpu::free_bytes), cache, images),
            // A CPU reads images from the host's memory.
            false => {
                let host = memory::host();
                (
                    memory::cache_budget(spec, image_size as u32, cache, host),
                    0,
                )
            }
        };
        let device = TorchDevice::new(spec, layout, place);
        let device = device
            .with_cache(cache)
            .counting(of_activations.clone())
            .with_images(images);
        Box::new(match &kernels {
            Some(folder) => device.with_kernels(spec, folder.clone()),
            None => device,
        }) as Box<dyn Device>
    });
    let device = DeviceThread::start(place, machine.clone(), make, config.profile(place))
        .map_err(|e| Failure(1, e.to_string()))?;
    let identity = identity(&config, tls.as_ref(), host, &mesh, place, machine).await?;
    info!(
        version = VERSION,
        worker = %identity.worker,
        device = identity.machine.device,
        listen = %mesh.address(),
        coordinator = config.coordinator,
        "worker.started: fovea-worker {VERSION} computes on {}, coordinator {}",
        identity.machine.device,
        config.coordinator
    );
    // Looking at a folder on a slow mount must not delay the start.
    let data_dir = config.data_dir.clone();
    tasks.spawn_blocking(move || {
        cache::sweep(&data_dir);
    });
    let ops_listen = config
        .ops_address()
        .map_err(|e| Failure(2, e.to_string()))?;
    let ops_listen = ops_listen.map(|address| (address, config.ops_listen.clone()));
    tasks.spawn_blocking(|| {
        segments::sweep(Path::new("/dev/shm"), Path::new("/proc"));
    });
    if let Some(tls) = tls.clone() {
        if let Some(joining) = joining {
            let (renewing, shutdown) = (joining.renew(tls.clone()), shutdown.clone());
            tasks.spawn(async move {
                renewing.await;
                shutdown.request();
            });
        }
        tasks.spawn(tls.reload());
    }
    let (traces, exporter) = match config.traces().map_err(|e| Failure(2, e.to_string()))? {
        None => (Traces::default(), None),
        Some(settings) => {
            let resource = Resource {
                service: "fovea-worker",
                version: VERSION,
                instance: identity.worker.to_string(),
            };
            let started = Traces::start(settings, resource);
            let (traces, exporter) = started.map_err(|e| Failure(2, e.to_string()))?;
            (traces, Some(exporter))
        }
    };
    let link = link::start(config.coordinator.clone(), tls, &mut tasks);
    let (channels, newest) = watch::channel(None);
    let context = Context {
        worker: identity.worker.clone(),
        config: Arc::new(config),
        mesh,
        device,
        coordinator: Coordinator(newest),
        traces: traces.clone(),
        hits: hits.clone(),
    };
    let exit_when_idle = context.config.exit_when_idle();
    let stop_timeout = Duration::from_secs(context.config.stop_timeout_s);
    let agent = Agent::new(identity, context, channels, shutdown.clone())
        .exit_when_idle(exit_when_idle)
        .stop_within(stop_timeout)
        .with_traces(traces)
        .with_hits(hits);
    meter::watch_memory(&agent.meter(), place);
    tasks.spawn(supervisor::notify(
        agent.shown(),
        Started::WhenAlive,
        shutdown,
    ));
    if let Some((address, name)) = ops_listen {
        let ops = Ops::bind(address, "fovea-worker", agent.shown())
            .await
            .map_err(|e| Failure(3, format!("cannot listen on {name} (ops_listen): {e}")))?;
        tasks.spawn(ops.serve());
    }
    let ended = agent.run(link).await;
    if let Some(exporter) = exporter {
        exporter.close(LAST_SPANS).await;
    }
    info!("worker.stopped: fovea-worker has stopped");
    ended.map_err(|e| Failure(2, e.to_string()))
}

/// The worker's certificate, and what renews it if it has joined with a token.
struct Certified {
    tls: Option<Tls>,
    joining: Option<Joining>,
}

/// None if the worker is asked to stop before it could join.
async fn certified(
    config: &WorkerConfig,
    host: &str,
    shutdown: &Shutdown,
) -> Result<Option<Certified>, Failure> {
    if let Some(files) = config.tls_files().map_err(|e| Failure(2, e.to_string()))? {
        let tls = Tls::load(files, "a worker", |role| role == Role::Worker);
        return Ok(Some(Certified {
            tls: Some(tls.map_err(|e| Failure(2, e.to_string()))?),
            joining: None,
        }));
    }
    if !config.joins() {
        return Ok(Some(Certified {
            tls: None,
            joining: None,
        }));
    }
    let wanted = match config.name.as_str() {
        "" => host,
        name => name,
    };
    let joining = Joining {
        coordinator: config.coordinator.clone(),
        token_file: config.join_token_file.clone(),
        data_dir: config.data_dir.clone(),
        host: wanted.to_owned(),
    };
    tokio::select! {
        tls = joining.certificate() => {
            let tls = tls.map_err(|e| Failure(2, e.to_string()))?;
            Ok(Some(Certified {
                tls: Some(tls),
                joining: Some(joining.clone()),
            }))
        }
        () = shutdown.wait() => Ok(None),
    }
}

fn hostname() -> String {
    machine::hostname().unwrap_or_else(|| "worker".into())
}

async fn identity(
    config: &WorkerConfig,
    tls: Option<&Tls>,
    host: String,
    mesh: &Mesh,
    place: tch::Device,
    machine: Machine,
) -> Result<Identity, Failure> {
    // With TLS the certificate says who this worker is: the coordinator refuses another name.
    let certified = tls.map(|tls| tls.identity().name().to_owned());
    let name = match &certified {
        // One that joined has asked for its name already.
        Some(name) if config.name.is_empty() || config.name == *name || config.joins() => name,
        Some(name) => {
            let given = &config.name;
            return Err(Failure(
                2,
                format!(
                    "name is {given:?}, and tls_certificate is that of worker {name:?}: leave name empty, or give a \
                     certificate of {given:?} (`fovea certs issue worker {given}`)"
                ),
            ));
        }
        None if config.name.is_empty() => &host,
        None => &config.name,
    };
    // A new id for each process: messages of an old process can never count for a new one. Workers that share a certificate
    // share the name, and in containers the number of the process is always 1, so the rest must not repeat.
    let short: String = name.chars().take(40).collect();
    let id = format!("{short}-{}-{:08x}", std::process::id(), random_u32());
    let worker = WorkerId::new(id).map_err(|e| Failure(2, format!("name: {e}")))?;
    let address = config
        .address(mesh.address())
        .map_err(|e| Failure(2, e.to_string()))?;
    if let Some(doubt) = advertise::doubt(&address, &config.coordinator) {
        warn!("advertise.loopback: {doubt}");
    }
    // Without it the coordinator does not notice that two workers share the GPU.
    let gpu_uuid = gpu::uuid(place).unwrap_or_else(|error| {
        warn!("gpu.unnamed: {error}; make sure that no other worker uses this GPU");
        None
    });
    Ok(Identity {
        worker,
        address,
        host,
        machine,
        boot_id: machine::boot_id(),
        gpu_uuid: gpu_uuid.unwrap_or_default(),
        memory: {
            let gpu = gpu_memory(place).await;
            Box::new(move || memory::measure(gpu))
        },
    })
}

/// The GPU's memory, if a GPU is used and the driver answers in time. Without it the coordinator does not compare.
async fn gpu_memory(place: tch::Device) -> Option<memory::Gpu> {
    if !place.is_cuda() {
        return None;
    }
    let asking = tokio::task::spawn_blocking(move || gpu::memory(place));
    let problem = match tokio::time::timeout(GPU_ANSWER, asking).await {
        Ok(Ok(Ok(memory))) => return memory,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the driver did not answer within {GPU_ANSWER:?}"),
    };
    warn!("gpu.memory_unknown: {problem}; runs are not compared with this GPU's memory");
    None
}

#[cfg(test)]
#[path = "../../tests/reference.rs"]
mod reference;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_reference_is_current() {
        let page = super::reference::commands(super::Cli::command(), "worker/src/config.rs");
        super::reference::check("fovea-worker.md", &page);
    }
}

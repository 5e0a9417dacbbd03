//! The coordinator's program: options, configuration, logs, data folder, address, serve, drain.

mod cli;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use fovea_coordinator::{
    Config, Coordinator, Listeners, OnStop, Vitals, restore, write_atomically,
};
use fovea_security::install_provider;
use fovea_service::ops::{self, Ops};
use fovea_service::supervisor::{self, Started};
use fovea_service::{
    FORCED, Shutdown, VERSION, init_logging, layered, raise_descriptor_limit, warn_misspelt,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use cli::{Args, Command, Failure};

fn main() -> ExitCode {
    install_provider();
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fovea-coordinator: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let config: Config = layered(args.config.as_deref(), std::env::vars(), &args.overrides())
        .map_err(Failure::config)?;
    if args.dump_config {
        let text = toml::to_string(&config).map_err(Failure::other)?;
        print!("{text}");
        return Ok(());
    }
    let addresses = config.validate().map_err(Failure::config)?;
    match &args.command {
        Some(Command::Health { live }) => {
            return ops::command(&config.ops_listen, *live).map_err(|e| Failure::health(&e));
        }
        Some(Command::Restore { file }) => {
            let restored = restore(file, &config.data_dir).map_err(|e| Failure::restore(&e))?;
            for line in restored.report() {
                println!("{line}");
            }
            return Ok(());
        }
        None => {}
    }
    init_logging(config.log_format, &config.log_level).map_err(Failure::config)?;
    warn_misspelt::<Config>(std::env::vars());
    raise_descriptor_limit();
    let limits = config.stop_limits();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)?;
    let ended = runtime.block_on(serve(args, config, &addresses));
    // Work on a disk that does not answer must not keep the process.
    runtime.shutdown_timeout(limits.threads);
    ended
}

/// How others reach a listener at this address: one on all addresses by the name of the machine.
fn reachable(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => format!("{}:{}", name.trim(), address.port()),
        Err(_) => address.to_string(),
    }
}

async fn serve(args: &Args, config: Config, addresses: &[SocketAddr]) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals().map_err(Failure::other)?;
    let setting = match config.on_stop {
        OnStop::Checkpoint => "drain_timeout_s",
        OnStop::HandOver => "on_stop",
    };
    shutdown
        .exit_within(config.stop_limits().total, FORCED, setting)
        .map_err(Failure::other)?;
    let (insecure, data_dir) = (config.allow_insecure, config.data_dir.clone());
    let listen = config.listen.clone();
    let (listeners, missing) = Listeners::bind(addresses)
        .await
        .map_err(|e| Failure::bind(&listen, &e))?;
    let bound = listeners.addresses().map_err(Failure::other)?;
    for error in missing {
        warn!(
            "coordinator.address_missing: listen is {listen:?}, but this machine does not have the \
             address {error}; listening on the others"
        );
    }
    let vitals = Vitals::new(shutdown.clone());
    let notifying = supervisor::notify(vitals.clone(), Started::WhenReady, shutdown.clone());
    let _supervisor = AbortOnDropHandle::new(tokio::spawn(notifying));
    // Before the journal is opened, which may take long.
    let _ops = match config.ops_address().map_err(Failure::config)? {
        None => None,
        Some(ops_address) => {
            let ops = Ops::bind(ops_address, "fovea-coordinator", vitals.clone())
                .await
                .map_err(|e| Failure::bind(&config.ops_listen, &e))?;
            Some(AbortOnDropHandle::new(tokio::spawn(ops.serve())))
        }
    };
    let http_listen = config.http_listen.clone();
    let dashboard = match &config.http_addresses().map_err(Failure::config)?[..] {
        [] => None,
        addresses => {
            let bound = Listeners::bind(addresses).await;
            Some(bound.map_err(|e| Failure::bind(&http_listen, &e))?.0)
        }
    };
    let mut coordinator = Coordinator::open(config)
        .await
        .map_err(|e| Failure::serve(&e))?
        .with_vitals(vitals);
    if let Some(listeners) = dashboard {
        coordinator = coordinator.with_dashboard(listeners);
    }
    if let (Some(path), Some(address)) = (&args.address_file, bound.first()) {
        let text = format!("{}\n", reachable(*address));
        write_atomically(path, text.as_bytes()).map_err(|e| Failure::address_file(path, &e))?;
    }
    let all: Vec<String> = bound.iter().map(SocketAddr::to_string).collect();
    let all = all.join(" and ");
    let identity = coordinator.identity().map(|identity| identity.to_string());
    let speaking = match &identity {
        Some(identity) => format!("with TLS as {identity}"),
        None => "in plain text".to_owned(),
    };
    info!(
        address = all,
        data_dir = %data_dir.display(),
        version = VERSION,
        identity,
        "coordinator.listening: listening on {all} {speaking}"
    );
    if insecure && identity.is_none() && bound.iter().any(|address| !address.ip().is_loopback()) {
        warn!(
            "coordinator.insecure: listening on {all} without TLS (allow_insecure); whoever \
             reaches that commands the coordinator and reads all data"
        );
    }
    coordinator
        .serve(listeners, shutdown)
        .await
        .map_err(|e| Failure::serve(&e))
}

#[cfg(test)]
#[path = "../../tests/reference.rs"]
mod reference;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_reference_is_current() {
        let page = super::reference::commands(super::Args::command(), "coordinator/src/cli.rs");
        super::reference::check("fovea-coordinator.md", &page);
    }
}

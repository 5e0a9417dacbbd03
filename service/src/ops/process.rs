//! Figures of the process, under the names that Prometheus's own libraries use, and of the build.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::{VERSION, descriptor_limit, open_descriptors};

/// Registers the figures of this process and `fovea_build_info`.
pub(super) fn register(registry: &mut Registry, program: &'static str) {
    registry.register(
        "fovea_build",
        "The program and its version",
        Info::new([("program", program), ("version", VERSION)]),
    );
    registry.register_collector(Box::new(Process));
}

/// Reads everything at the scrape. What cannot be read is left out.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let value = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit, value.metric_type())?;
            value.encode(metric)
        };
        if let Ok(open) = open_descriptors() {
            gauge(
                "process_open_fds",
                "Number of open file descriptors",
                None,
                open as f64,
            )?;
        }
        let most = descriptor_limit();
        gauge(
            "process_max_fds",
            "Maximum number of open file descriptors",
            None,
            most as f64,
        )?;
        let Ok(stat) = procfs::process::Process::myself().and_then(|process| process.stat()) else {
            return Ok(());
        };
        let page = procfs::page_size();
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        gauge(
            "process_resident_memory",
            "Resident memory size",
            bytes,
            (stat.rss * page) as f64,
        )?;
        gauge(
            "process_virtual_memory",
            "Virtual memory size",
            bytes,
            stat.vsize as f64,
        )?;
        gauge(
            "process_threads",
            "Number of OS threads",
            None,
            stat.num_threads as f64,
        )?;
        if let Ok(boot) = procfs::boot_time_secs() {
            let started = boot as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64;
            let help = "Start time of the process since the Unix epoch";
            gauge("process_start_time", help, seconds, started)?;
        }
        let spent = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let spent = ConstCounter::new(spent);
        let help = "Total user and system CPU time";
        let metric =
            encoder.encode_descriptor("process_cpu", help, seconds, spent.metric_type())?;
        spent.encode(metric)
    }
}

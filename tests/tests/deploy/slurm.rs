//! deploy/slurm on a Slurm of two nodes on this machine: preemption of half of the workers, a coordinator that moves to the
//! other node, a time limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fovea_tests::{Process, free_port};

use crate::client::{Client, until};
use crate::site::{certificates, must, root, site};

/// The jobs' owner on a machine of one person.
const USER: &str = "root";

/// A Slurm that ends with the test.
struct Slurm {
    dir: PathBuf,
    // In the order in which they end.
    _daemons: Vec<Process>,
}

impl Slurm {
    fn start(dir: &Path) -> Self {
        let host = must(&mut Command::new("hostname"));
        let host = host.trim();
        for folder in ["state", "run", "log", "jobs"] {
            fs::create_dir_all(dir.join(folder)).expect("a folder can be made");
        }
        let key: [u8; 128] = std::array::from_fn(|i| i as u8);
        fs::write(dir.join("munge.key"), key).expect("a file can be written");
        must(Command::new("chmod").arg("600").arg(dir.join("munge.key")));
        let [control, first, second] = std::array::from_fn(|_| free_port());
        let at = dir.display();
        // Preempted and requeued jobs start again after cred_expire.
        let config = format!(
            "ClusterName=fovea\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={at}/run/munge.socket,cred_expire=6\n\
             SlurmctldPort={control}\nSlurmctldPidFile={at}/run/ctld.pid\nSlurmdPidFile={at}/run/%n.pid\n\
             SlurmdSpoolDir={at}/spool-%n\nStateSaveLocation={at}/state\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_CPU\nSlurmdParameters=config_overrides\nReturnToService=2\n\
             SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0\n\
             PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\nMpiDefault=none\n\
             NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=8 RealMemory=8000\n\
             NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=8 RealMemory=8000\n\
             PartitionName=spare Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE\n\
             PartitionName=urgent Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF\n"
        );
        let conf = dir.join("slurm.conf");
        fs::write(&conf, config).expect("a file can be written");
        let mut daemons = Vec::new();
        let mut munged = Command::new("munged");
        munged.args(["--foreground", "--force"]);
        for (option, file) in [
            ("--key-file", "munge.key"),
            ("--socket", "run/munge.socket"),
            ("--pid-file", "run/munged.pid"),
            ("--log-file", "log/munged"),
            ("--seed-file", "run/seed"),
        ] {
            munged.arg(option).arg(dir.join(file));
        }
        daemons.push(Process::start(munged, dir.join("log/munged.out")));
        until("munge's socket", || {
            dir.join("run/munge.socket").exists().then_some(())
        });
        let mut controller = Command::new("slurmctld");
        controller.arg("-D").arg("-f").arg(&conf);
        daemons.push(Process::start(controller, dir.join("log/slurmctld")));
        for node in ["n1", "n2"] {
            let mut slurmd = Command::new("slurmd");
            slurmd.args(["-D", "-N", node]).arg("-f").arg(&conf);
            daemons.push(Process::start(slurmd, dir.join("log").join(node)));
        }
        daemons.reverse();
        let slurm = Self {
            dir: dir.to_owned(),
            _daemons: daemons,
        };
        until("two idle nodes", || {
            let out = slurm
                .command("sinfo")
                .args(["-h", "-N", "-t", "idle"])
                .output();
            let text = out.map(|out| out.stdout).unwrap_or_default();
            (String::from_utf8_lossy(&text)
                .lines()
                .filter(|line| line.contains("spare"))
                .count()
                == 2)
                .then_some(())
        });
        slurm
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SLURM_CONF", self.dir.join("slurm.conf"))
            .env("SHARED", self.dir.join("shared"))
            .env("SCRATCH", self.dir.join("scratch"))
            .env("PREFIX", &site().prefix);
        command
    }

    /// Submits a job, and returns its id.
    fn sbatch(&self, arguments: &[&str]) -> String {
        let mut command = self.command("sbatch");
        command.arg("--parsable").arg("--mem=0").arg("--chdir");
        let id = must(command.arg(self.dir.join("jobs")).args(arguments));
        id.trim().to_owned()
    }

    fn script(&self, name: &str) -> String {
        root().join("deploy/slurm").join(name).display().to_string()
    }

    /// The states and nodes of a job's elements, such as "RUNNING n1".
    fn states(&self, job: &str) -> Vec<String> {
        let mut squeue = self.command("squeue");
        let text = must(squeue.args(["-h", "-r", "-o", "%T %N", "-j", job]));
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn running(&self, job: &str, node: &str) -> usize {
        let wanted = format!("RUNNING {node}");
        self.states(job)
            .iter()
            .filter(|state| **state == wanted)
            .count()
    }

    fn wait_running(&self, job: &str, node: &str, count: usize) {
        until(&format!("{count} of job {job} on {node}"), || {
            (self.running(job, node) == count).then_some(())
        });
    }

    /// What the jobs have written.
    fn output(&self) -> String {
        let files = fs::read_dir(self.dir.join("jobs")).expect("a folder");
        let text = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            format!("== {}\n{text}", path.display())
        };
        files
            .map(|entry| text(entry.expect("an entry").path()))
            .collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.output();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(150)..].join("\n"));
        }
        let _ = self.command("scancel").args(["--user", USER]).output();
        // What still runs is killed KillWait after the cancellation; the daemons do that.
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < end {
            let left = self.command("squeue").arg("-h").output();
            if left.is_ok_and(|out| out.stdout.is_empty()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
#[ignore = "starts a Slurm: `make test-deploy` runs it"]
fn slurm_preempts_moves_and_ends_jobs_and_the_weights_stay() {
    let site = site();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let slurm = Slurm::start(dir.path());
    let certs = dir.path().join("shared/certs");
    certificates(&certs, "slurm");
    let address = dir.path().join("shared/address");
    let client = Client::new(
        site.prefix.join("bin/fovea"),
        format!("file:{}", address.display()),
    )
    .with_certificates(&certs);
    let coordinator = slurm.sbatch(&[
        "--export=ALL,FOVEA_LISTEN=0.0.0.0:0",
        "-w",
        "n2",
        &slurm.script("coordinator.sbatch"),
    ]);
    let array = [
        "--array=0-3",
        "-w",
        "n1",
        "--cpus-per-task=1",
        &slurm.script("workers.sbatch"),
    ];
    let workers = slurm.sbatch(&array);
    slurm.wait_running(&workers, "n1", 4);
    let run = client.submit(&site.dataset, &site.run_file);
    client.progresses(&run, 5, 4);

    // 6 of the 8 processors of the node: two workers must go. They come back when there is room again.
    let urgent = slurm.sbatch(&[
        "-p",
        "urgent",
        "-w",
        "n1",
        "--cpus-per-task=6",
        "--wrap",
        "exec sleep 600",
    ]);
    slurm.wait_running(&urgent, "n1", 1);
    client.progresses(&run, 5, 2);
    must(slurm.command("scancel").arg(&urgent));
    slurm.wait_running(&workers, "n1", 4);
    client.progresses(&run, 5, 4);

    // The node is drained: the coordinator moves to the other one, and adopts the run.
    let before = fs::read_to_string(&address).expect("the address is there");
    let drain = ["update", "nodename=n2", "state=drain", "reason=test"];
    must(slurm.command("scontrol").args(drain));
    let free = ["update", &format!("jobid={coordinator}"), "reqnodelist=n1"];
    must(slurm.command("scontrol").args(["requeue", &coordinator]));
    until("the coordinator's job may go to n1", || {
        let out = slurm
            .command("scontrol")
            .args(free)
            .output()
            .expect("scontrol starts");
        out.status.success().then_some(())
    });
    slurm.wait_running(&coordinator, "n1", 1);
    client.progresses(&run, 5, 4);
    let log = slurm.output();
    assert!(
        log.contains("coordinator.stopped: the runs are left to their workers"),
        "{log}"
    );
    assert_ne!(
        fs::read_to_string(&address).expect("the address is there"),
        before
    );

    // A worker's time is over: it leaves, and waits for its next turn.
    let element = format!("{workers}_1");
    must(
        slurm
            .command("scontrol")
            .args(["update", &format!("jobid={element}"), "timelimit=2"]),
    );
    until("the worker whose time is over has left", || {
        slurm
            .output()
            .contains("workers.sbatch: the time is over")
            .then_some(())
    });
    // Its next turn is longer; with less than the signal's 120 s there would be none before the end.
    let longer = ["update", &format!("jobid={element}"), "timelimit=60"];
    must(slurm.command("scontrol").args(longer));
    slurm.wait_running(&workers, "n1", 4);
    client.completes(&run, &site.expected, dir.path());
    let log = slurm.output();
    assert!(!log.contains("shutdown.forced"), "{log}");
}

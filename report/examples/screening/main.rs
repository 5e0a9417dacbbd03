//! Writes the report of a made-up run, to look at:
//! `cargo run --release -p fovea-report --example screening -- FILE`.

mod data;
mod picture;

fn main() {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("Give the file to write, such as report.html.");
        std::process::exit(2);
    };
    let mut report = data::report();
    if let Some(errors) = &mut report.worst_errors {
        for (number, error) in errors.all.iter_mut().enumerate() {
            error.heat_map = Some(picture::heat_map(number as u64));
        }
    }
    if let Err(error) = std::fs::write(&file, fovea_report::html(&report)) {
        eprintln!("{}: {error}", file.display());
        std::process::exit(1);
    }
}

//! Logging: lines for people or JSON, on standard error, beside the progress display.

use std::io::{IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How to log.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LogArgs {
    /// What to log: a level, or levels by module (`info,cdc_sink::sink=debug`)
    #[arg(
        long,
        env = "CDC_SINK_LOG",
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Process"
    )]
    log: String,
    /// How log lines look
    #[arg(
        long,
        env = "CDC_SINK_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Process"
    )]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Where log lines and the progress display meet: lines are printed above the display.
#[derive(Debug, Clone, Default)]
pub(super) struct Screen {
    display: MultiProgress,
}

impl Screen {
    /// The progress display; none when nobody watches.
    pub(super) fn display(&self) -> Option<&MultiProgress> {
        std::io::stderr().is_terminal().then_some(&self.display)
    }
}

/// Starts logging as `args` say. What other crates log is quieter by one level.
pub(super) fn start(args: &LogArgs) -> crate::error::Result<Screen> {
    let screen = Screen::default();
    let wanted = if args.log.contains(['=', ',']) {
        args.log.clone()
    } else {
        format!("warn,cdc_sink={}", args.log)
    };
    let filter = EnvFilter::try_new(&wanted).map_err(|e| {
        crate::error::Error::invalid(format!("option log: {} is no filter", args.log)).because(e)
    })?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines(screen.clone()));
    let started = match args.log_format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => {
            builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
        }
    };
    started.map_err(|e| crate::error::Error::internal("cannot start logging").because(e))?;
    Ok(screen)
}

#[derive(Debug, Clone)]
struct Lines(Screen);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.display.suspend(|| std::io::stderr().write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

//! The live part of the terminal: the table of who calls whom, redrawn every two seconds; lines about what happens scroll above it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use graph::{Flow, Window};

use super::changes::{Changes, LOOK};
use super::traffic;
use crate::api::Api;
use crate::commands::exec::terminal_size;
use crate::output::{self, Colour, Tone};

/// How often the proxies are scraped.
const SCRAPE: Duration = Duration::from_secs(2);
/// The time that rates and quantiles are about.
const WINDOW: Duration = Duration::from_secs(10);

pub async fn run(api: &Api, changes: &mut Changes) -> Result<()> {
    let colour = Colour::of(&std::io::stdout());
    let mut screen = Screen { lines: 0 };
    let start = Instant::now();
    let mut window = Window::new(WINDOW);
    let totals = traffic::scrape(api).await.unwrap_or_default();
    window.add(totals, start.elapsed());
    let mut look = tokio::time::interval(LOOK);
    let mut scrape = tokio::time::interval(SCRAPE);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    scrape.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shown = String::new();
    loop {
        tokio::select! {
            _ = look.tick() => {
                let lines = changes.look(api).await?;
                if !lines.is_empty() {
                    screen.clear();
                    lines.iter().for_each(|line| println_quietly(line));
                    screen.draw(&shown);
                }
            }
            _ = scrape.tick() => {
                let totals = traffic::scrape(api).await.unwrap_or_default();
                window.add(totals, start.elapsed());
                shown = text(&window.flows(), colour);
                screen.draw(&shown);
            }
        }
    }
}

fn text(flows: &[Flow], colour: Colour) -> String {
    let (columns, rows) = terminal_size().unwrap_or((100, 30));
    if flows.is_empty() {
        return format!(
            "{}\n",
            colour.paint(
                "no traffic in the last ten seconds; Ctrl-C stops the mesh",
                Tone::Faint
            )
        );
    }
    let table = traffic::table(flows).render_within(usize::from(columns), colour);
    let room = usize::from(rows).saturating_sub(2).max(3);
    table
        .lines()
        .take(room)
        .map(|line| format!("{}\n", cut(line, usize::from(columns))))
        .collect()
}

/// The first characters of a line, escape sequences not counted, so that no line wraps.
fn cut(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    let mut escape = false;
    for c in line.chars() {
        if c == '\x1b' {
            escape = true;
        }
        if !escape {
            width += output::width_of(c);
            if width > columns {
                continue;
            }
        }
        out.push(c);
        if escape && c == 'm' {
            escape = false;
        }
    }
    out
}

/// The lines at the end of the terminal that are ours.
struct Screen {
    lines: usize,
}

impl Screen {
    fn clear(&mut self) {
        if self.lines > 0 {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\x1b[{}A\x1b[J", self.lines);
            self.lines = 0;
        }
    }

    fn draw(&mut self, text: &str) {
        self.clear();
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.lines = text.lines().count();
    }
}

/// A terminal that went away is noticed by its hang-up.
fn println_quietly(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_without_cutting_colours() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[32mabcdef\x1b[0m", 3), "\x1b[32mabc\x1b[0m");
        assert_eq!(cut("🔒ab", 3), "🔒a");
    }
}

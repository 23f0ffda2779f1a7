//! Plain aligned columns: readable by people, cut by `awk`.

use owo_colors::{OwoColorize as _, Stream};

use super::output;

/// Rows of cells; a cell may hold colour, its width is counted without.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut widths: Vec<usize> = self.head.iter().map(|cell| visible_width(cell)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(visible_width(cell));
            }
        }
        let head = aligned(&self.head, &widths);
        output::line(&head.if_supports_color(Stream::Stdout, |text| text.bold()).to_string())?;
        for row in &self.rows {
            output::line(&aligned(row, &widths))?;
        }
        Ok(())
    }
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        text.push_str(cell);
        if index + 1 < cells.len() {
            text.extend(std::iter::repeat_n(' ', width - visible_width(cell) + 2));
        }
    }
    text
}

/// Characters that take room: escape sequences `ESC [ ... m` do not.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut escaped = false;
    for c in text.chars() {
        match (escaped, c) {
            (false, '\u{1b}') => escaped = true,
            (true, 'm') => escaped = false,
            (false, _) => width += 1,
            (true, _) => {}
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_does_not_count_as_width() {
        assert_eq!(visible_width("\u{1b}[32mok\u{1b}[0m"), 2);
        assert_eq!(
            aligned(&["\u{1b}[32mok\u{1b}[0m".to_owned(), "x".to_owned()], &[4, 1]),
            "\u{1b}[32mok\u{1b}[0m    x"
        );
    }
}

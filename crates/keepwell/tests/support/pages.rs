//! What each byte of a SQLite database file is for, in the words of `docs/formats/store.md`, so that a test can say what a
//! mutation hit. Follows the file format (<https://www.sqlite.org/fileformat2.html>); it reads a file known to be whole.

use std::collections::BTreeMap;
use std::ops::Range;

/// The size of a page; the store makes no others.
pub const PAGE: usize = 4096;

/// Names of the bytes of a file, by where they begin.
pub struct Names(Vec<&'static str>);

impl Names {
    /// Names every byte of a whole database.
    pub fn of(file: &[u8]) -> Self {
        let mut names = Self(vec!["page that nothing refers to"; file.len()]);
        let mut reader = Reader {
            file,
            names: &mut names,
        };
        reader.name(0..100, "database header");
        // Change counter, and the version and counter that the size is valid for.
        reader.name(24..28, "database header: counters");
        reader.name(92..100, "database header: counters");
        reader.name(40..56, "database header: defaults");
        reader.name(60..68, "database header: defaults");
        reader.name(72..92, "database header: reserved");
        reader.free_pages(number(file, 32), number(file, 36));
        let tables = reader.tables();
        for (name, root) in tables {
            reader.tree(root, table(&name));
        }
        names
    }

    pub fn at(&self, offset: usize) -> &'static str {
        self.0.get(offset).copied().unwrap_or("beyond the end")
    }
}

/// The cells of a table.
fn table(name: &str) -> &'static str {
    match name {
        "row" => "table row",
        "leaf" => "table leaf",
        "checkpoint" => "table checkpoint",
        "meta" => "table meta",
        _ => "unknown table",
    }
}

struct Reader<'a> {
    file: &'a [u8],
    names: &'a mut Names,
}

impl Reader<'_> {
    fn name(&mut self, range: Range<usize>, name: &'static str) {
        self.names.0[range].fill(name);
    }

    fn free_pages(&mut self, mut trunk: usize, count: usize) {
        for _ in 0..=count {
            if trunk == 0 {
                return;
            }
            let at = (trunk - 1) * PAGE;
            self.name(at..at + PAGE, "free page");
            let leaves = number(self.file, at + 4);
            self.name(at..at + 8 + 4 * leaves, "list of free pages");
            for leaf in 0..leaves {
                let free = (number(self.file, at + 8 + 4 * leaf) - 1) * PAGE;
                self.name(free..free + PAGE, "free page");
            }
            trunk = number(self.file, at);
        }
    }

    /// Names and roots of the tables, from the schema on the first page.
    fn tables(&mut self) -> BTreeMap<String, usize> {
        let mut tables = BTreeMap::new();
        for cell in self.page(1, "schema") {
            let (_, mut at) = varint(self.file, cell.start);
            at = varint(self.file, at).1;
            let columns = record(self.file, at);
            let text = |column: &Range<usize>| String::from_utf8_lossy(&self.file[column.clone()]).into_owned();
            let root = self.file[columns[3].clone()]
                .iter()
                .fold(0, |n, byte| n << 8 | usize::from(*byte));
            tables.insert(text(&columns[1]), root);
        }
        tables
    }

    /// Names a tree's pages from its root down.
    fn tree(&mut self, root: usize, name: &'static str) {
        let at = (root - 1) * PAGE;
        let cells = self.page(root, name);
        if matches!(self.file[at], 5 | 2) {
            for cell in cells {
                self.tree(number(self.file, cell.start), name);
            }
            self.tree(number(self.file, at + 8), name);
        }
    }

    /// Names one page; gives its cells.
    fn page(&mut self, page: usize, name: &'static str) -> Vec<Range<usize>> {
        let at = (page - 1) * PAGE;
        let head = if page == 1 { at + 100 } else { at };
        let kind = self.file[head];
        let interior = matches!(kind, 5 | 2);
        let pointers = head + if interior { 12 } else { 8 };
        let count = short(self.file, head + 3);
        self.name(pointers + 2 * count..at + PAGE, "free space in a page");
        self.name(head..pointers + 2 * count, "head of a page");
        // The number of fragmented bytes and the place of the first free block and of the content guide inserts only.
        let mut free = short(self.file, head + 1);
        while free != 0 {
            self.name(at + free..at + free + 4, "list of free space in a page");
            free = short(self.file, at + free);
        }
        let mut cells = Vec::with_capacity(count);
        for n in 0..count {
            let start = at + short(self.file, pointers + 2 * n);
            let end = self.cell(kind, start);
            self.name(start..end, if kind == 5 { "separator of a table" } else { name });
            cells.push(start..end);
        }
        cells
    }

    /// Where a cell ends; names its overflow pages.
    fn cell(&mut self, kind: u8, start: usize) -> usize {
        let mut at = if matches!(kind, 5 | 2) { start + 4 } else { start };
        if kind == 5 {
            return varint(self.file, at).1;
        }
        let (length, next) = varint(self.file, at);
        at = if kind == 13 { varint(self.file, next).1 } else { next };
        let largest = if kind == 13 {
            PAGE - 35
        } else {
            (PAGE - 12) * 64 / 255 - 23
        };
        if length <= largest {
            // A cell takes four bytes at least.
            return (at + length).max(start + 4);
        }
        let least = (PAGE - 12) * 32 / 255 - 23;
        let here = least + (length - least) % (PAGE - 4);
        let here = if here <= largest { here } else { least };
        let mut rest = length - here;
        let mut page = number(self.file, at + here);
        while page != 0 {
            let overflow = (page - 1) * PAGE;
            let used = rest.min(PAGE - 4);
            self.name(overflow..overflow + PAGE, "free space in a page");
            self.name(overflow..overflow + 4 + used, "overflow of a cell");
            rest -= used;
            page = number(self.file, overflow);
        }
        at + here + 4
    }
}

/// Where the columns of a record lie.
fn record(file: &[u8], at: usize) -> Vec<Range<usize>> {
    let (length, mut next) = varint(file, at);
    let (end, mut content) = (at + length, at + length);
    let mut columns = Vec::new();
    while next < end {
        let (kind, after) = varint(file, next);
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            other => (other - 12) / 2,
        };
        columns.push(content..content + size);
        content += size;
        next = after;
    }
    columns
}

fn short(file: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([file[at], file[at + 1]]))
}

fn number(file: &[u8], at: usize) -> usize {
    short(file, at) << 16 | short(file, at + 2)
}

/// A number of seven bits a byte, the highest first, and where it ends.
fn varint(file: &[u8], at: usize) -> (usize, usize) {
    let mut value = 0;
    for n in 0..8 {
        let byte = file[at + n];
        value = value << 7 | usize::from(byte & 0x7f);
        if byte < 0x80 {
            return (value, at + n + 1);
        }
    }
    (value << 8 | usize::from(file[at + 8]), at + 9)
}

//! The rules of ARCHITECTURE.md and CONTRIBUTING.md, checked on the source tree itself.
//!
//! A rule that only people check is forgotten; each of these names the file and line that breaks it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Source files outside these files and folders, and those of an instruction set, hold no `unsafe`.
const UNSAFE_FILES: &[&str] = &[
    "formats/src/map.rs",
    "kernels/src/ops/",
    "kernels/src/panel/",
    "kernels/src/quant_tile.rs",
    "kernels/src/scalar/panel.rs",
    "kernels/src/simd/",
    "kernels/src/tests/",
    "kernels/src/tile.rs",
    "runtime/src/exec/affinity.rs",
    "runtime/src/exec/team/board.rs",
    "runtime/src/exec/team/mod.rs",
    "runtime/src/exec/split/",
    "runtime/src/prefix/lock.rs",
];
/// Crates that applications link.
const LIBRARIES: &[&str] = &["formats", "kernels", "runtime"];
/// Most lines of a file, its tests not counted.
const MAX_LINES: usize = 400;
/// Most lines of a file whose header gives a reason (a line with `over 400 lines`).
const MAX_LINES_WITH_REASON: usize = 600;
/// Most crates that a build of the library links, itself included. The limit was 35; the thread team is to be a rayon
/// pool, whose core is four crates.
const MAX_LIBRARY_CRATES: usize = 36;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The lines before the file's test module, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (n + 1, line)).take_while(|(_, line)| *line != "#[cfg(test)]")
    }

    fn is_test(&self) -> bool {
        self.name.contains("/tests/") || self.name.ends_with("/tests.rs") || self.name.starts_with("tests/")
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            if !["target", "corpus", "artifacts"].iter().any(|skip| entry.ends_with(skip)) {
                walk(&entry, found);
            }
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// Every Rust file of the workspace.
fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for part in ["formats", "kernels", "runtime", "cli", "benches", "tests", "fuzz"] {
        walk(&root.join(part), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 40, "the walk found only {} files", paths.len());
    paths
        .into_iter()
        .map(|path| Source {
            name: path.strip_prefix(&root).expect("inside").to_string_lossy().replace('\\', "/"),
            text: fs::read_to_string(&path).expect("UTF-8"),
        })
        .collect()
}

fn libraries() -> Vec<Source> {
    let in_library = |source: &Source| LIBRARIES.iter().any(|l| source.name.starts_with(&format!("{l}/src/")));
    sources().into_iter().filter(in_library).filter(|source| !source.is_test()).collect()
}

#[track_caller]
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Lines of library code (comments left out) for which `breaks` holds.
fn breaking(sources: &[Source], breaks: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        for (n, line) in source.code() {
            let code = line.split("//").next().unwrap_or(line);
            if breaks(source, code) {
                broken.push(format!("{}:{n}: {}", source.name, line.trim()));
            }
        }
    }
    broken
}

#[test]
fn every_file_opens_with_what_it_is() {
    let broken: Vec<String> =
        sources().into_iter().filter(|source| !source.text.starts_with("//!")).map(|source| source.name).collect();
    none("a file opens with //! and what it is for", &broken);
}

/// The compiler does not tell of a file that nobody names.
#[test]
fn every_file_is_part_of_its_crate() {
    let sources = sources();
    let folder_of = |name: &str| name.rsplit_once('/').map(|(folder, file)| (folder.to_owned(), file.to_owned()));
    let is_named = |folder: &str, module: &str| {
        let line = format!("mod {module};");
        sources.iter().any(|s| folder_of(&s.name).is_some_and(|(f, _)| f == folder) && s.text.contains(&line))
    };
    let mut broken = Vec::new();
    for Source { name, .. } in sources.iter().filter(|source| source.name.contains("/src/")) {
        let Some((folder, file)) = folder_of(name) else { continue };
        let (folder, module) = match file.as_str() {
            "lib.rs" | "main.rs" => continue,
            "mod.rs" => folder_of(&folder).expect("below `src`"),
            file => (folder, file.trim_end_matches(".rs").to_owned()),
        };
        if !is_named(&folder, &module) {
            broken.push(name.clone());
        }
    }
    none("no `mod` names these files", &broken);
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.code().count();
        let reason =
            source.text.lines().take_while(|line| line.starts_with("//!")).any(|l| l.contains("over 400 lines"));
        if lines > if reason { MAX_LINES_WITH_REASON } else { MAX_LINES } {
            broken.push(format!("{}: {lines} lines", source.name));
        }
    }
    none("a file has at most 400 lines without its tests", &broken);
}

#[test]
fn nothing_is_unfinished_or_hidden() {
    // Put together here, so that this file does not find itself.
    let marks = ["todo", "unimplemented"].map(|word| format!("{word}!(")).into_iter();
    let marks: Vec<String> = marks.chain([["#[", "ignore"].concat(), ["FIX", "ME"].concat()]).collect();
    let mut broken = Vec::new();
    for source in sources() {
        for (n, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                broken.push(format!("{}:{}: {}", source.name, n + 1, line.trim()));
            }
        }
    }
    none("no unfinished or hidden work", &broken);
}

#[test]
fn libraries_do_not_panic_on_purpose() {
    let words = [".unwrap()", ".expect(", "panic!(", "unreachable!("];
    none(
        "libraries return typed errors",
        &breaking(&libraries(), |_, code| words.iter().any(|word| code.contains(word))),
    );
}

#[test]
fn libraries_have_no_hidden_state() {
    let words = ["std::env", "env::var", "println!(", "eprintln!(", "static mut", "thread_local!", "lazy_static"];
    none(
        "no environment, console or global state in libraries",
        &breaking(&libraries(), |_, code| words.iter().any(|word| code.contains(word))),
    );
    let words = ["std::time", "std::thread", "std::fs", "std::net"];
    let below: Vec<Source> = libraries().into_iter().filter(|source| source.name.starts_with("kernels/")).collect();
    none(
        "kernels know no clock, thread, file or network",
        &breaking(&below, |_, code| words.iter().any(|word| code.contains(word))),
    );
}

#[test]
fn unsafe_stays_in_few_files_and_each_block_has_a_proof() {
    let outside = breaking(&libraries(), |source, code| {
        let arch = source.name.contains("/x86/") || source.name.contains("/aarch64/");
        (code.contains("unsafe {") || code.contains("unsafe impl"))
            && !arch
            && !UNSAFE_FILES.iter().any(|place| source.name.starts_with(place))
    });
    none("unsafe only where ARCHITECTURE.md allows it", &outside);
    let mut unproved = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let opens = (line.contains("unsafe {") || line.contains("unsafe impl")) && !line.trim().starts_with("//");
            let quoted = line.contains("\"unsafe");
            let comment = lines[..n].iter().rev().take_while(|above| above.trim().starts_with("//"));
            if opens && !quoted && !comment.into_iter().any(|above| above.contains("SAFETY:")) {
                unproved.push(format!("{}:{}: {}", source.name, n + 1, line.trim()));
            }
        }
    }
    none("a // SAFETY: proof stands right above each unsafe", &unproved);
}

#[test]
fn crates_depend_one_way() {
    let manifest = |part: &str| {
        let text = fs::read_to_string(root().join(part).join("Cargo.toml")).expect("a manifest");
        // A crate may use anything in its tests.
        text.split("[dev-dependencies]").next().unwrap_or_default().to_owned()
    };
    let depends = |part: &str, on: &str| {
        manifest(part).lines().any(|line| line.split([' ', '.', '=']).next().is_some_and(|name| name == on))
    };
    assert!(depends("runtime", "halfbyte-kernels") && depends("kernels", "halfbyte-formats"), "the check reads names");
    for (part, on) in [
        ("formats", "halfbyte-kernels"),
        ("formats", "halfbyte"),
        ("kernels", "halfbyte"),
        ("runtime", "halfbyte-cli"),
        ("runtime", "clap"),
        ("runtime", "anyhow"),
        ("formats", "anyhow"),
        ("kernels", "anyhow"),
    ] {
        assert!(!depends(part, on), "{part} depends on {on}");
    }
}

#[test]
fn runtime_modules_depend_one_way() {
    let runtime: Vec<Source> = libraries().into_iter().filter(|source| source.name.starts_with("runtime/")).collect();
    none(
        "models never import sched or session; layers never import models; text imports neither",
        &breaking(&runtime, |source, code| {
            let imports =
                |module: &str| code.contains(&format!("crate::{module}")) || code.contains(&format!("    {module}::"));
            let inside = |folder: &str| source.name.contains(&format!("/src/{folder}/"));
            inside("models") && (imports("sched") || imports("session"))
                || inside("layers") && (imports("models") || imports("session"))
                || inside("text") && (imports("models") || imports("layers") || imports("session"))
        }),
    );
}

/// crates.io takes packages up to 10 MiB.
#[test]
fn bundled_models_are_small() {
    let sizes = fs::read_dir(root().join("cli/models")).expect("the folder").map(|entry| {
        let entry = entry.expect("a file");
        (entry.path(), entry.metadata().expect("a size").len())
    });
    let sizes: Vec<_> = sizes.collect();
    assert!(sizes.iter().all(|(_, bytes)| *bytes <= 8 << 20), "{sizes:?}");
    assert!(sizes.iter().map(|(_, bytes)| bytes).sum::<u64>() < 10 << 20, "{sizes:?}");
}

/// Where a program was compiled says nothing on a phone: there tests have the files they read in them. What lies outside
/// the repository is not there anyway.
#[test]
fn tests_carry_their_files() {
    let places = ["tests/src/files.rs", "tests/tests/house_rules.rs"];
    let built_there = ["env!(\"CARGO", "_MANIFEST_DIR\")"].concat();
    let breaks = |line: &str| line.contains(&built_there) && !line.contains("shared") && !line.contains("Cargo.toml");
    let on_a_phone = sources().into_iter().filter(|source| {
        let crates = ["formats/", "kernels/", "runtime/", "tests/"];
        crates.iter().any(|name| source.name.starts_with(name)) && !places.contains(&source.name.as_str())
    });
    let lines = on_a_phone.flat_map(|source| {
        let broken = source.text.lines().enumerate().filter(|(_, line)| breaks(line));
        broken.map(|(n, line)| format!("{}:{}: {}", source.name, n + 1, line.trim())).collect::<Vec<_>>()
    });
    none("tests read no file by where they were compiled", &lines.collect::<Vec<_>>());
}

#[test]
fn names_follow_the_house() {
    let words = ["Manager", "Helper", "Utils"];
    none(
        "no Manager, Helper, Utils, and no accessor called get_",
        &breaking(&libraries(), |_, code| {
            let defines = ["struct ", "enum ", "trait ", "mod ", "type "].iter().any(|word| code.contains(word));
            // minijinja's trait `Object`, whose methods take themselves like this, names its own.
            let foreign = code.contains("(self: &Arc<Self>");
            defines && words.iter().any(|word| code.contains(word)) || code.contains("fn get_") && !foreign
        }),
    );
}

#[test]
fn target_features_agree_with_the_tier() {
    for source in libraries() {
        let Some(folder) =
            source.name.strip_prefix("kernels/src/x86/").or(source.name.strip_prefix("kernels/src/aarch64/"))
        else {
            continue;
        };
        let Some((tier, _)) = folder.split_once('/') else { continue };
        let module = root().join(&source.name).with_file_name("mod.rs");
        let module = fs::read_to_string(module).unwrap_or_default();
        let features = module.split("FEATURES: &str = \"").nth(1).and_then(|rest| rest.split('"').next());
        for (n, line) in source.code().filter(|(_, line)| line.contains("target_feature(enable")) {
            let enabled = line.split('"').nth(1);
            assert_eq!(enabled, features, "{}:{n} does not name FEATURES of tier {tier}", source.name);
        }
    }
}

#[test]
fn the_minimum_rust_version_is_written_once() {
    let root = root();
    let workspace = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    assert_eq!(workspace.matches("rust-version = \"").count(), 1);
    for part in ["formats", "kernels", "runtime", "cli", "benches", "tests"] {
        let text = fs::read_to_string(root.join(part).join("Cargo.toml")).expect("a manifest");
        assert!(text.contains("rust-version.workspace = true"), "{part} inherits rust-version");
        assert!(text.contains("[lints]\nworkspace = true"), "{part} inherits the lints");
    }
}

#[test]
fn the_library_stays_light() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "halfbyte", "-e", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("UTF-8");
    // Two versions of a crate are two crates; what follows the version is a path or a mark of repetition.
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: BTreeSet<String> = text.lines().filter(|line| !line.is_empty()).map(name_and_version).collect();
    assert!(crates.iter().any(|name| name.starts_with("halfbyte v")), "cargo tree printed the library");
    assert!(crates.len() <= MAX_LIBRARY_CRATES, "{} crates: {crates:?}", crates.len());
}

#[test]
fn the_checklists_name_real_places() {
    let root = root();
    for page in ["ARCHITECTURE.md", "docs/adding-an-isa.md", "docs/adding-a-model.md", "docs/adding-a-quant-format.md"]
    {
        let text = fs::read_to_string(root.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        let named = text.split('`').skip(1).step_by(2);
        let paths = named.filter(|word| {
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c));
            plain && word.contains('/') && (word.ends_with(".rs") || word.ends_with(".md") || word.ends_with('/'))
        });
        let mut seen = 0;
        for path in paths.filter(|path| !path.contains("name")) {
            assert!(root.join(path).exists(), "{page} names {path}, which is not there");
            seen += 1;
        }
        assert!(seen > 0, "{page} names no file");
    }
}

//! A tiny Qwen2 with random weights and a byte vocabulary, written once for a test run, and how to call the program.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use halfbyte_formats::{
    FormatError, QuantType,
    gguf::{GgufWriter, Strings},
};

const HIDDEN: usize = 32;
const FFN: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const LAYERS: usize = 2;
/// Longest context of the model.
const CONTEXT: usize = 16_384;
/// 256 bytes, two merged tokens, three control tokens.
pub(crate) const VOCAB: usize = 261;

/// The character that stands for `byte` in a byte-level vocabulary: itself if it is printable, else the next of
/// U+0100 and up.
fn shown(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count();
    char::from_u32(256 + before as u32).expect("a letter")
}

/// The path of the model; its multi-token-prediction layer lies beside it.
pub(crate) fn model() -> PathBuf {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("tiny.gguf");
        std::fs::write(&path, trunk(true).expect("a trunk")).expect("written");
        std::fs::write(folder.join("mtp-tiny.gguf"), mtp().expect("a layer")).expect("written");
        path
    };
    MODEL.get_or_init(write).clone()
}

fn head(layers: usize) -> Result<GgufWriter, FormatError> {
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", "qwen2")?;
    writer.put("general.name", "tiny")?;
    writer.put("general.file_type", 0_u32)?;
    for (key, value) in [
        ("qwen2.block_count", layers),
        ("qwen2.context_length", CONTEXT),
        ("qwen2.embedding_length", HIDDEN),
        ("qwen2.feed_forward_length", FFN),
        ("qwen2.attention.head_count", HEADS),
        ("qwen2.attention.head_count_kv", KV_HEADS),
    ] {
        writer.put(key, value as u32)?;
    }
    writer.put("qwen2.attention.layer_norm_rms_epsilon", 1e-5_f32)?;
    writer.put("qwen2.rope.freq_base", 1e4_f32)?;
    Ok(writer)
}

fn trunk(with_tensors: bool) -> Result<Vec<u8>, FormatError> {
    let mut writer = head(LAYERS)?;
    let mut tokens: Vec<String> = (0..=255).map(|byte| shown(byte).to_string()).collect();
    tokens.extend(["th", "the"].map(str::to_owned));
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    assert_eq!(tokens.len(), VOCAB);
    let kinds: Vec<i32> = (0..VOCAB).map(|id| if id < VOCAB - 3 { 1 } else { 3 }).collect();
    assert_eq!(shown(b' '), 'Ġ');
    writer.put("tokenizer.ggml.model", "gpt2")?;
    writer.put("tokenizer.ggml.pre", "qwen2")?;
    writer.put("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>())?;
    writer.put("tokenizer.ggml.token_type", kinds)?;
    writer.put("tokenizer.ggml.merges", ["t h", "th e"].into_iter().collect::<Strings>())?;
    writer.put("tokenizer.ggml.eos_token_id", VOCAB as u32 - 3)?;
    writer.put("tokenizer.ggml.add_bos_token", false)?;
    let mut tensors = Tensors(Vec::new());
    if with_tensors {
        tensors.add("token_embd.weight", &[HIDDEN, VOCAB]);
        tensors.add("output_norm.weight", &[HIDDEN]);
        (0..LAYERS).for_each(|n| tensors.block(n));
    }
    tensors.write(writer, 1)
}

fn mtp() -> Result<Vec<u8>, FormatError> {
    let mut writer = head(LAYERS + 1)?;
    writer.put("qwen2.nextn_predict_layers", 1_u32)?;
    let mut tensors = Tensors(Vec::new());
    for (part, dims) in [
        ("enorm", &[HIDDEN][..]),
        ("hnorm", &[HIDDEN]),
        ("eh_proj", &[2 * HIDDEN, HIDDEN]),
        ("shared_head_norm", &[HIDDEN]),
    ] {
        tensors.add(&format!("blk.{LAYERS}.nextn.{part}.weight"), dims);
    }
    tensors.block(LAYERS);
    tensors.write(writer, 2)
}

/// Names and extents.
struct Tensors(Vec<(String, Vec<usize>)>);

impl Tensors {
    fn add(&mut self, name: &str, dims: &[usize]) {
        self.0.push((name.to_owned(), dims.to_vec()));
    }

    fn block(&mut self, n: usize) {
        let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        for (part, dims) in [
            ("attn_norm.weight", &[HIDDEN][..]),
            ("attn_q.weight", &[HIDDEN, q]),
            ("attn_q.bias", &[q]),
            ("attn_k.weight", &[HIDDEN, kv]),
            ("attn_k.bias", &[kv]),
            ("attn_v.weight", &[HIDDEN, kv]),
            ("attn_v.bias", &[kv]),
            ("attn_output.weight", &[q, HIDDEN]),
            ("ffn_norm.weight", &[HIDDEN]),
            ("ffn_gate.weight", &[HIDDEN, FFN]),
            ("ffn_up.weight", &[HIDDEN, FFN]),
            ("ffn_down.weight", &[FFN, HIDDEN]),
        ] {
            self.add(&format!("blk.{n}.{part}"), dims);
        }
    }

    /// Norms are 1, everything else is uniform in (-0.5, 0.5), but the embeddings of control tokens are so small that
    /// none of them is ever the most likely token.
    fn write(self, mut writer: GgufWriter, seed: u64) -> Result<Vec<u8>, FormatError> {
        for (name, dims) in &self.0 {
            writer.declare(name, dims, QuantType::F32)?;
        }
        let mut stream = writer.write_to(Vec::new())?;
        let mut state = seed;
        for (name, dims) in &self.0 {
            let values = (0..dims.iter().product()).map(|index: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let uniform = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
                match name {
                    name if name.contains("norm") => 1.0,
                    name if name == "token_embd.weight" && index >= (VOCAB - 3) * HIDDEN => uniform * 0.01,
                    _ => uniform,
                }
            });
            let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            stream.write_tensor(name, &data)?;
        }
        stream.finish()
    }
}

/// A file that holds the vocabulary of the model and no tensor.
pub(crate) fn vocabulary() -> String {
    file("vocab.gguf", &trunk(false).expect("a vocabulary"))
}

/// A command of the program under test.
pub(crate) fn halfbyte<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(arguments: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfbyte"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a finished program left behind.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Done {
    /// stdout of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// stdout of a success, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).expect("JSON")
    }

    /// stderr of a failure with `code` that left nothing on stdout.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        self.stderr
    }
}

/// Sends the signal of that name, as `kill` knows it, to the process `id`.
#[cfg(unix)]
pub(crate) fn kill(signal: &str, id: u32) {
    let done = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status();
    assert!(done.expect("a shell").success());
}

/// The exit code that a shell has for a program.
#[cfg(unix)]
pub(crate) fn code(mut child: std::process::Child) -> i32 {
    let ended = child.wait().expect("ends");
    let by_signal = std::os::unix::process::ExitStatusExt::signal(&ended);
    ended.code().or(by_signal.map(|signal| 128 + signal)).expect("ended")
}

/// Lets signals reach the programs that this one starts, also where it was itself started with some of them ignored:
/// that is inherited, and a handler is not. This one ends as it would have.
#[cfg(unix)]
pub(crate) fn heed_signals() {
    use signal_hook::{consts, flag};
    for signal in [consts::SIGINT, consts::SIGTERM, consts::SIGHUP] {
        let always = std::sync::Arc::new(true.into());
        flag::register_conditional_shutdown(signal, 128 + signal, always).expect("a handler");
    }
}

/// Runs the program.
pub(crate) fn run<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(arguments: I) -> Done {
    halfbyte(arguments).output().expect("runs").into()
}

/// Runs the program with `input` on its stdin.
pub(crate) fn run_with<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(arguments: I, input: impl AsRef<[u8]>) -> Done {
    let mut child = halfbyte(arguments).stdin(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that fails early does not read it.
    let _ = stdin.write_all(input.as_ref());
    drop(stdin);
    child.wait_with_output().expect("runs").into()
}

/// Runs `command MODEL arguments…` on the tiny model.
pub(crate) fn on_model(command: &str, arguments: &[&str]) -> Done {
    let model = model();
    let model = model.to_str().expect("UTF-8");
    run([command, model].iter().chain(arguments))
}

/// A file with `text` in it, beside the model.
pub(crate) fn file(name: &str, text: &[u8]) -> String {
    let path = model().with_file_name(name);
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

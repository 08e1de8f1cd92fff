//! The models inside this program, so that it can be tried without a download.
//!
//! How they were made is told in `models/train/` of the repository. Their bytes are part of the executable's read-only
//! data: nothing is copied to use them.

/// A model as a GGUF file, with its multi-token-prediction layer if it has one.
#[derive(Debug)]
pub(crate) struct Bundled {
    /// What MODEL calls it.
    pub(crate) name: &'static str,
    /// The trunk and the vocabulary.
    pub(crate) trunk: &'static [u8],
    /// The multi-token-prediction layer.
    pub(crate) mtp: Option<&'static [u8]>,
}

/// All of them; the first is used when no MODEL is given.
pub(crate) static MODELS: [Bundled; 2] = [
    Bundled {
        name: "tiny-mimo",
        trunk: include_bytes!("../models/tiny-mimo-q4_0.gguf"),
        mtp: Some(include_bytes!("../models/mtp-tiny-mimo-q4_0.gguf")),
    },
    Bundled { name: "tiny-phimoe", trunk: include_bytes!("../models/tiny-phimoe-q4_0.gguf"), mtp: None },
];

/// The one called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Bundled> {
    MODELS.iter().find(|model| model.name == name)
}

/// Their names, for messages.
pub(crate) fn names() -> String {
    MODELS.each_ref().map(|model| model.name).join(", ")
}

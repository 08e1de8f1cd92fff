//! ggml's CPU kernels, from a build of llama.cpp or of ik_llama.cpp that is loaded at run time.
//!
//! Products go through the public interface, as a graph of one node: its small cost (a plan, a walk over one node) is
//! part of what is timed, as it is in a model. Each build is tried with weights as stored and with weights arranged
//! anew: in llama.cpp by its buffer type `CPU_REPACK`, in ik_llama.cpp by the function its `-rtr` calls.

mod api;

use std::{ffi::c_int, path::Path, ptr, rc::Rc};

use halfbyte_benches::Shape;
use halfbyte_formats::QuantType;

use self::api::{Api, Arrange, Backend, Buffer, BufferType, Context, Graph, InitParams, Tensor};
use crate::{Engine, Side};

/// A build, and whether it arranges weights anew.
pub(crate) struct Ggml {
    name: String,
    api: Rc<Api>,
    repack: bool,
}

/// The engines of a build: `FOLDER` or `NAME=FOLDER`, a folder with `libggml-base.so` and `libggml-cpu.so`, or with a
/// `libggml.so` that holds both.
pub(crate) fn open(build: &str) -> Result<impl Iterator<Item = Ggml>, libloading::Error> {
    let (name, folder) = build.split_once('=').unwrap_or(("", build));
    let api = Rc::new(Api::load(Path::new(folder))?);
    let name = match name {
        "" if api.iqk_repack_tensor.is_some() => "ik_llama.cpp",
        "" => "llama.cpp",
        name => name,
    }
    .to_owned();
    let build = move |repack| {
        let name = if repack { format!("{name}-repack") } else { name.clone() };
        Ggml { name, api: Rc::clone(&api), repack }
    };
    Ok([false, true].into_iter().map(build))
}

impl Engine for Ggml {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, ty: QuantType, shape: Shape, weights: &[u8], x: &[f32]) -> Option<Box<dyn Side>> {
        let arrange = if self.repack { self.api.repack()? } else { Arrange::Stored };
        let mut product = Product::new(Rc::clone(&self.api), ty, shape)?;
        product.set(ty, weights, x, arrange)?;
        Some(Box::new(product))
    }
}

/// A graph of one product, with its memory.
struct Product {
    api: Rc<Api>,
    backend: *mut Backend,
    /// Of the weights, and of the rest.
    contexts: [*mut Context; 2],
    buffers: Vec<*mut Buffer>,
    w: *mut Tensor,
    x: *mut Tensor,
    out: *mut Tensor,
    graph: *mut Graph,
    /// Elements of `out`.
    len: usize,
}

impl Product {
    /// Describes the product; nothing has memory yet.
    fn new(api: Rc<Api>, ty: QuantType, shape: Shape) -> Option<Self> {
        let params = || InitParams { mem_size: 1 << 20, mem_buffer: ptr::null_mut(), no_alloc: true };
        // SAFETY: the parameters ask for memory of ggml's own.
        let contexts = [unsafe { (api.ggml_init)(params()) }, unsafe { (api.ggml_init)(params()) }];
        // SAFETY: no preconditions.
        let backend = unsafe { (api.ggml_backend_cpu_init)() };
        let null = ptr::null_mut();
        let len = shape.tokens * shape.rows;
        let mut product = Self {
            api,
            backend,
            contexts,
            buffers: Vec::new(),
            w: null,
            x: null,
            out: null,
            graph: ptr::null_mut(),
            len,
        };
        if contexts.contains(&ptr::null_mut()) || backend.is_null() {
            return None;
        }
        let [rows, depth, tokens] = [shape.rows, shape.depth, shape.tokens].map(|n| n as i64);
        let api = &product.api;
        // SAFETY: a CPU backend that was made above.
        unsafe { (api.ggml_backend_cpu_set_n_threads)(backend, 1) };
        // SAFETY: a context with room for some thousand descriptions; a type of ggml's list, as GGUF numbers are.
        product.w = unsafe { (api.ggml_new_tensor_2d)(contexts[0], ty.ggml_id() as c_int, depth, rows) };
        // SAFETY: as above.
        product.x = unsafe { (api.ggml_new_tensor_2d)(contexts[1], QuantType::F32.ggml_id() as c_int, depth, tokens) };
        Some(product)
    }

    /// Takes the data; `None` if this build does not know how to arrange these weights.
    fn set(&mut self, ty: QuantType, weights: &[u8], x: &[f32], arrange: Arrange) -> Option<()> {
        let api = Rc::clone(&self.api);
        // SAFETY: no preconditions.
        let plain = unsafe { (api.ggml_backend_cpu_buffer_type)() };
        self.allocate(0, if let Arrange::Buffer(buffer) = arrange { buffer } else { plain })?;
        // SAFETY: both are of this context's library, and their depths agree.
        self.out = unsafe { (api.ggml_mul_mat)(self.contexts[1], self.w, self.x) };
        self.allocate(1, plain)?;
        let known = match arrange {
            // SAFETY: a tensor that has memory.
            Arrange::InPlace { becomes, .. } => unsafe { becomes(self.w) != ty.ggml_id() as c_int },
            // SAFETY: a node whose inputs have memory.
            _ => unsafe { (api.ggml_backend_supports_op)(self.backend, self.out) },
        };
        if !known {
            return None;
        }
        // SAFETY: weights of the length of their tensor, which has memory.
        unsafe { (api.ggml_backend_tensor_set)(self.w, weights.as_ptr().cast(), 0, weights.len()) };
        if let Arrange::InPlace { repack, .. } = arrange {
            // SAFETY: a tensor that has its data, in main memory.
            unsafe { repack(self.w) };
        }
        // SAFETY: inputs of the length of their tensor, which has memory.
        unsafe { (api.ggml_backend_tensor_set)(self.x, x.as_ptr().cast(), 0, size_of_val(x)) };
        // SAFETY: a context with room for it.
        self.graph = unsafe { (api.ggml_new_graph)(self.contexts[1]) };
        // SAFETY: both were made above.
        unsafe { (api.ggml_build_forward_expand)(self.graph, self.out) };
        Some(())
    }

    /// Gives memory to what one of the contexts describes.
    fn allocate(&mut self, context: usize, ty: *mut BufferType) -> Option<()> {
        // SAFETY: a context of descriptions without memory, and a buffer type, of the same library.
        let buffer = unsafe { (self.api.ggml_backend_alloc_ctx_tensors_from_buft)(self.contexts[context], ty) };
        if buffer.is_null() {
            return None;
        }
        self.buffers.push(buffer);
        Some(())
    }
}

impl Side for Product {
    fn run(&mut self) {
        // SAFETY: a graph whose tensors have memory, of the backend's library.
        let status = unsafe { (self.api.ggml_backend_graph_compute)(self.backend, self.graph) };
        assert_eq!(status, 0, "ggml_backend_graph_compute failed");
    }

    fn result(&self) -> Vec<f32> {
        let mut out = vec![0.0f32; self.len];
        let bytes = size_of_val(out.as_slice());
        // SAFETY: the tensor has so many bytes, and so has `out`.
        unsafe { (self.api.ggml_backend_tensor_get)(self.out, out.as_mut_ptr().cast(), 0, bytes) };
        out
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        for buffer in self.buffers.drain(..) {
            // SAFETY: made by `allocate`, freed once.
            unsafe { (self.api.ggml_backend_buffer_free)(buffer) };
        }
        for context in self.contexts {
            // SAFETY: made by `new`, freed once; null is allowed.
            unsafe { (self.api.ggml_free)(context) };
        }
        if !self.backend.is_null() {
            // SAFETY: made by `new`, freed once.
            unsafe { (self.api.ggml_backend_free)(self.backend) };
        }
    }
}

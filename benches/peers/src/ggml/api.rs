//! The functions of ggml that are needed, as its headers `ggml.h`, `ggml-alloc.h`, `ggml-backend.h` and `ggml-cpu.h`
//! declare them (llama.cpp of 2026; the fork ik_llama.cpp has the same ones).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// Types that only pointers are known of.
macro_rules! opaque {
    ($($name:ident),*) => { $(
        #[repr(C)]
        pub(super) struct $name {
            _private: [u8; 0],
        }
    )* };
}
opaque!(Context, Tensor, Graph, Backend, Buffer, BufferType, Registry, Device);

/// `struct ggml_init_params`.
#[repr(C)]
pub(super) struct InitParams {
    /// Bytes for descriptions.
    pub(super) mem_size: usize,
    /// Null: ggml allocates them.
    pub(super) mem_buffer: *mut c_void,
    /// Tensors are described only.
    pub(super) no_alloc: bool,
}

/// Declares the functions every build has, and those that only some have.
macro_rules! api {
    (
        $(fn $name:ident($($arg:ty),*) $(-> $result:ty)?;)*
        $(optional fn $optional:ident($($optional_arg:ty),*) $(-> $optional_result:ty)?;)*
    ) => {
        /// The functions of one build, by their names in C.
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
            $(pub(super) $optional: Option<unsafe extern "C" fn($($optional_arg),*) $(-> $optional_result)?>,)*
            /// What the functions above are part of; never unloaded before them.
            _libraries: Vec<Library>,
        }

        impl Api {
            fn link(libraries: Vec<Library>) -> Result<Self, libloading::Error> {
                Ok(Self {
                    $(
                        // SAFETY: the type is that of the declaration in ggml's headers.
                        $name: unsafe { symbol(&libraries, stringify!($name)) }?,
                    )*
                    $(
                        // SAFETY: as above.
                        $optional: unsafe { symbol(&libraries, stringify!($optional)) }.ok(),
                    )*
                    _libraries: libraries,
                })
            }
        }
    };
}

api! {
    fn ggml_init(InitParams) -> *mut Context;
    fn ggml_free(*mut Context);
    fn ggml_new_tensor_2d(*mut Context, c_int, i64, i64) -> *mut Tensor;
    fn ggml_mul_mat(*mut Context, *mut Tensor, *mut Tensor) -> *mut Tensor;
    fn ggml_new_graph(*mut Context) -> *mut Graph;
    fn ggml_build_forward_expand(*mut Graph, *mut Tensor);
    fn ggml_backend_alloc_ctx_tensors_from_buft(*mut Context, *mut BufferType) -> *mut Buffer;
    fn ggml_backend_buffer_free(*mut Buffer);
    fn ggml_backend_tensor_set(*mut Tensor, *const c_void, usize, usize);
    fn ggml_backend_tensor_get(*const Tensor, *mut c_void, usize, usize);
    fn ggml_backend_graph_compute(*mut Backend, *mut Graph) -> c_int;
    fn ggml_backend_supports_op(*mut Backend, *const Tensor) -> bool;
    fn ggml_backend_free(*mut Backend);
    fn ggml_backend_buft_name(*mut BufferType) -> *const c_char;
    fn ggml_backend_cpu_buffer_type() -> *mut BufferType;
    fn ggml_backend_cpu_init() -> *mut Backend;
    fn ggml_backend_cpu_set_n_threads(*mut Backend, c_int);
    optional fn ggml_backend_cpu_reg() -> *mut Registry;
    optional fn ggml_backend_reg_dev_get(*mut Registry, usize) -> *mut Device;
    optional fn ggml_backend_reg_get_proc_address(*mut Registry, *const c_char) -> *mut c_void;
    optional fn iqk_repack_tensor(*mut Tensor);
    optional fn iqk_repacked_type(*const Tensor) -> c_int;
}

/// How weights lie in memory.
#[derive(Clone, Copy)]
pub(super) enum Arrange {
    /// As in a file.
    Stored,
    /// As this buffer type likes it.
    Buffer(*mut BufferType),
    /// Changed after they were stored.
    InPlace {
        /// The type they then have; the same one if nothing is to be changed.
        becomes: unsafe extern "C" fn(*const Tensor) -> c_int,
        /// Does it.
        repack: unsafe extern "C" fn(*mut Tensor),
    },
}

/// `ggml_backend_dev_get_extra_bufts_t`: a list that ends with null.
type ExtraBufferTypes = unsafe extern "C" fn(*mut Device) -> *const *mut BufferType;

impl Api {
    /// Loads the libraries of a folder.
    pub(super) fn load(folder: &Path) -> Result<Self, libloading::Error> {
        let split = folder.join("libggml-cpu.so").exists();
        let names: &[_] = if split { &["libggml-base.so", "libggml-cpu.so"] } else { &["libggml.so"] };
        let open = |name: &&str| {
            // SAFETY: the library was named by who runs this; its constructors are those of any C++ program.
            // Local: two builds in one process keep to their own functions.
            unsafe { Library::open(Some(folder.join(name)), RTLD_NOW | RTLD_LOCAL) }
        };
        Self::link(names.iter().map(open).collect::<Result<_, _>>()?)
    }

    /// How this build arranges weights anew.
    pub(super) fn repack(&self) -> Option<Arrange> {
        if let (Some(becomes), Some(repack)) = (self.iqk_repacked_type, self.iqk_repack_tensor) {
            return Some(Arrange::InPlace { becomes, repack });
        }
        self.repack_buffer_type().map(Arrange::Buffer)
    }

    /// The buffer type that arranges weights anew, in llama.cpp.
    fn repack_buffer_type(&self) -> Option<*mut BufferType> {
        // SAFETY: no preconditions.
        let registry = unsafe { self.ggml_backend_cpu_reg?() };
        // SAFETY: the registry of the CPU has one device.
        let device = unsafe { self.ggml_backend_reg_dev_get?(registry, 0) };
        let name = c"ggml_backend_dev_get_extra_bufts";
        // SAFETY: a registry, and a string.
        let list = unsafe { self.ggml_backend_reg_get_proc_address?(registry, name.as_ptr()) };
        if list.is_null() {
            return None;
        }
        // SAFETY: `ggml-backend.h` says that this name stands for a function of this type.
        let list = unsafe { std::mem::transmute::<*mut c_void, ExtraBufferTypes>(list) };
        // SAFETY: the device of that registry.
        let mut next = unsafe { list(device) };
        loop {
            // SAFETY: the list is not over yet, as its end is null.
            let ty = unsafe { *next };
            if ty.is_null() {
                return None;
            }
            // SAFETY: a buffer type.
            let name = unsafe { (self.ggml_backend_buft_name)(ty) };
            // SAFETY: a constant string of the library.
            if unsafe { CStr::from_ptr(name) } == c"CPU_REPACK" {
                return Some(ty);
            }
            // SAFETY: the list goes on until null.
            next = unsafe { next.add(1) };
        }
    }
}

/// The function `name` in one of the libraries.
///
/// # Safety
/// `T` is its type.
unsafe fn symbol<T: Copy>(libraries: &[Library], name: &str) -> Result<T, libloading::Error> {
    let mut found = Err(libloading::Error::DlSymUnknown);
    for library in libraries {
        // SAFETY: the caller's promise.
        found = unsafe { library.get::<T>(name.as_bytes()) }.map(|symbol| *symbol);
        if found.is_ok() {
            break;
        }
    }
    found
}

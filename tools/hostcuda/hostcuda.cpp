// A CUDA that computes on the host: as much of the runtime, of NVRTC, of the driver and of cuBLAS as CuPy needs.
// Work is done when it is submitted; waits are counted all the same, because on a GPU each of them costs.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <immintrin.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))
typedef std::string Text;

static Text setting(const char* name, const char* otherwise = "") { return getenv(name) ? getenv(name) : otherwise; }

// ---------------------------------------------------------------------- what counts.py asks

enum Count { KERNELS, TO_DEVICE, TO_HOST, ON_DEVICE, MEMSETS, PRODUCTS, WAITS, ALLOCATIONS, COMPILED };
static long counts[16];
static FILE* trace = nullptr;

API long* hostcuda_counts() { return counts; }
API void hostcuda_trace(const char* path) {
  if (trace) fclose(trace);
  trace = *path ? fopen(path, "w") : nullptr;
}
static void count(Count what, const char* name) {
  counts[what]++;
  if (trace) fprintf(trace, "%s\n", name), fflush(trace);
}
static cudaError_t wait(const char* name) { return count(WAITS, name), cudaSuccess; }

// ---------------------------------------------------------------------- devices, as an H100 describes itself

static thread_local int device = 0;  // the current one of this thread
static int devices() { return atoi(setting("HOSTCUDA_DEVICES", "1").c_str()); }

API cudaError_t cudaGetDeviceCount(int* n) { return (*n = devices()) ? cudaSuccess : cudaErrorNoDevice; }
API cudaError_t cudaGetDevice(int* d) { return *d = device, devices() ? cudaSuccess : cudaErrorNoDevice; }
API cudaError_t cudaSetDevice(int d) {
  return d >= 0 && d < devices() ? device = d, cudaSuccess : cudaErrorInvalidDevice;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = !getenv("HOSTCUDA_NO_PEER"), cudaSuccess; }
API cudaError_t cudaDriverGetVersion(int* v) { return *v = 12090, cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* v) { return *v = 12090, cudaSuccess; }
API cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* p, int) {
  *p = {};
  strcpy(p->name, "CUDA on the host");
  p->major = 9, p->warpSize = 32, p->multiProcessorCount = 132, p->totalGlobalMem = 1ull << 34;
  p->sharedMemPerBlock = 49152, p->regsPerBlock = 65536, p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  static const std::map<int, int> known = {
      {cudaDevAttrMaxThreadsPerBlock, 1024}, {cudaDevAttrMaxBlockDimX, 1024}, {cudaDevAttrMaxBlockDimY, 1024},
      {cudaDevAttrMaxBlockDimZ, 64}, {cudaDevAttrMaxGridDimX, 2147483647}, {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535}, {cudaDevAttrMaxSharedMemoryPerBlock, 49152}, {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMultiProcessorCount, 132}, {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
      {cudaDevAttrComputeCapabilityMajor, 9}, {cudaDevAttrComputeCapabilityMinor, 0}};
  auto found = known.find(attribute);
  return *value = found == known.end() ? 1 : found->second, cudaSuccess;
}

static const std::map<int, std::pair<const char*, const char*>> errors = {
    {cudaErrorMemoryAllocation, {"cudaErrorMemoryAllocation", "out of memory"}},
    {cudaErrorNoDevice, {"cudaErrorNoDevice", "no CUDA-capable device is detected"}},
    {cudaErrorInvalidDevice, {"cudaErrorInvalidDevice", "invalid device ordinal"}},
    {cudaErrorNotSupported, {"cudaErrorNotSupported", "the CUDA on the host lacks this function"}}};
API const char* cudaGetErrorName(cudaError_t e) { return errors.count(e) ? errors.at(e).first : "cudaErrorUnknown"; }
API const char* cudaGetErrorString(cudaError_t e) { return errors.count(e) ? errors.at(e).second : "unknown error"; }

// ---------------------------------------------------------------------- streams and events: all work is done already

API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return *s = (cudaStream_t) new int, cudaSuccess; }
API cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, 0); }
API cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* s) {
  return *s = cudaStreamCaptureStatusNone, cudaSuccess;
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = (cudaEvent_t) new int, cudaSuccess; }
API cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 0, cudaSuccess; }
API cudaError_t cudaStreamSynchronize(cudaStream_t) { return wait("WAIT for a stream"); }
API cudaError_t cudaEventSynchronize(cudaEvent_t) { return wait("WAIT for an event"); }
API cudaError_t cudaDeviceSynchronize() { return wait("WAIT for the device"); }

// ---------------------------------------------------------------------- memory: what is fresh is NaN

struct Block {
  size_t size;
  int device;
};
static std::map<const char*, Block> blocks;  // by their first byte
static std::mutex lock;

static const Block* block_of(const void* p) {
  std::lock_guard<std::mutex> guard(lock);
  auto after = blocks.upper_bound((const char*)p);
  if (after == blocks.begin()) return nullptr;
  auto& [first, block] = *std::prev(after);
  return (const char*)p < first + block.size ? &block : nullptr;
}
API cudaError_t cudaHostAlloc(void** p, size_t size, unsigned) {
  return (*p = aligned_alloc(512, (size / 512 + 1) * 512)) ? cudaSuccess : cudaErrorMemoryAllocation;
}
API cudaError_t cudaFreeHost(void* p) { return free(p), cudaSuccess; }
API cudaError_t cudaMalloc(void** p, size_t size) {
  if (cudaError_t error = cudaHostAlloc(p, size, 0)) return error;
  count(ALLOCATIONS, "allocation");
  memset(*p, 0xff, size);
  std::lock_guard<std::mutex> guard(lock);
  blocks[(char*)*p] = {size + 1, device};
  return cudaSuccess;
}
API cudaError_t cudaFree(void* p) {
  std::lock_guard<std::mutex> guard(lock);
  blocks.erase((char*)p);
  return free(p), cudaSuccess;
}
API cudaError_t cudaMemGetInfo(size_t* unused, size_t* all) { return *unused = *all = 1ull << 34, cudaSuccess; }
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* p) {
  const Block* block = block_of(p);
  *found = {block ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered, block ? block->device : cudaInvalidDeviceId};
  (block ? found->devicePointer : found->hostPointer) = const_cast<void*>(p);
  return cudaSuccess;
}
static cudaError_t copy(void* to, const void* from, size_t size) {
  if (!block_of(from)) count(TO_DEVICE, "copy to the device");
  else if (!block_of(to)) count(TO_HOST, "copy to the host");
  else count(ON_DEVICE, "copy on the device");
  return memmove(to, from, size), cudaSuccess;
}
API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) {
  return wait("WAIT for a copy"), copy(to, from, n);
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, cudaStream_t) {
  return copy(to, from, n);
}
API cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t n) { return copy(to, from, n); }
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, cudaStream_t) {
  return copy(to, from, n);
}
API cudaError_t cudaMemset(void* p, int byte, size_t n) {
  return count(MEMSETS, "memset"), memset(p, byte, n), cudaSuccess;
}
API cudaError_t cudaMemsetAsync(void* p, int byte, size_t n, cudaStream_t) { return cudaMemset(p, byte, n); }

// ---------------------------------------------------------------------- NVRTC: g++, with prelude.h in front

struct Program {
  Text source, library, log;  // the path of the library stands for the machine code
};

static Text contents(const Text& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}
static Text for_the_host(Text source) {
  static const std::regex dynamic("extern\\s+__shared__\\s+([\\w ]+?)\\s+(\\w+)\\s*\\[\\s*\\]\\s*;");
  static const std::regex kernel("__global__\\s+void\\s+(?:__launch_bounds__\\s*\\([^)]*\\)\\s*)?(\\w+)\\s*\\(");
  source = std::regex_replace(source, dynamic, "$1* const $2 = ($1*)hostcuda_shared;");
  bool waits = std::regex_search(source, std::regex("__sync|_sync\\s*\\("));
  Text ending;
  for (std::sregex_iterator found(source.begin(), source.end(), kernel), end; found != end; ++found)
    ending += "\nHOST_KERNEL(" + (*found)[1].str() + (waits ? ", true)" : ", false)");
  return source + ending + "\n";
}
API int nvrtcCreateProgram(void** p, const char* source, const char*, int, const char**, const char**) {
  return *p = new Program{for_the_host(source)}, 0;
}
API int nvrtcCompileProgram(Program* program, int n, const char** options) {
  static const Text prelude = setting("HOSTCUDA_INCLUDE") + "/prelude.h", in_front = contents(prelude);
  Text flags = setting("HOSTCUDA_FLAGS"), folder = setting("HOSTCUDA_KERNELS");
  for (Text option; n--; options++)
    if ((option = *options).rfind("-I", 0) == 0 || option.rfind("-D", 0) == 0) flags += " '" + option + "'";
  char name[32];
  snprintf(name, sizeof name, "/%016zx", std::hash<Text>{}(in_front + flags + program->source));
  program->library = folder + name + ".so";
  if (!access(program->library.c_str(), R_OK)) return 0;
  count(COMPILED, "compilation");
  Text own = folder + name + "-" + std::to_string(getpid());  // several processes may compile it at once
  std::ofstream(own + ".cpp") << program->source;
  Text command = "env -u LD_PRELOAD g++ " + flags + " -shared -include '" + prelude + "' '" + own + ".cpp' -o '" + own +
                 ".so' 2> '" + own + ".log'";
  bool failed = system(command.c_str());
  if (failed) program->log = "g++ cannot compile this kernel for the host:\n" + contents(own + ".log").substr(0, 4000);
  else rename((own + ".so").c_str(), program->library.c_str());
  for (const char* suffix : {".cpp", ".log"}) unlink((own + suffix).c_str());
  return failed ? 6 : 0;  // NVRTC_ERROR_COMPILATION
}
static int give(const Text& text, char* to) { return strcpy(to, text.c_str()), 0; }
API int nvrtcGetCUBINSize(Program* p, size_t* n) { return *n = p->library.size() + 1, 0; }
API int nvrtcGetCUBIN(Program* p, char* to) { return give(p->library, to); }
API int nvrtcGetPTXSize(Program* p, size_t* n) { return nvrtcGetCUBINSize(p, n); }
API int nvrtcGetPTX(Program* p, char* to) { return give(p->library, to); }
API int nvrtcGetProgramLogSize(Program* p, size_t* n) { return *n = p->log.size() + 1, 0; }
API int nvrtcGetProgramLog(Program* p, char* to) { return give(p->log, to); }
API int nvrtcDestroyProgram(Program** p) { return delete *p, 0; }
API int nvrtcVersion(int* major, int* minor) { return *major = 12, *minor = 9, 0; }
API const char* nvrtcGetErrorString(int e) { return e == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }

// ---------------------------------------------------------------------- a block of threads that wait for each other

const size_t STACK = 65536;
struct Fiber {  // a thread: it runs until it waits, then the next one runs
  void* sp;
  char* stack;
  bool done;
};
struct Barrier {
  unsigned waiting, times;  // who waits at it now, and how often it has opened
};
static std::vector<Fiber> fibers;
static unsigned threads, current;  // of the block that runs
static void (*body)();
static void* scheduler;
static Barrier of_block, of_warp[32];
static bool moved;  // whether a thread ended or a barrier opened in this round
static unsigned long long exchanged[1024][2];

extern "C" void hostcuda_switch(void** from, void* to);  // saves the stack and the registers that a call must keep
asm(".text\n.globl hostcuda_switch\nhostcuda_switch:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");

static void run_thread() {
  body();
  fibers[current].done = moved = true;
  hostcuda_switch(&fibers[current].sp, scheduler);
}
static void wait_at(Barrier& barrier, unsigned first, unsigned end, unsigned mask) {
  barrier.waiting++;
  for (unsigned times = barrier.times; barrier.times == times;) {
    unsigned alive = 0;
    for (unsigned i = first; i < end && i < threads; i++) alive += !fibers[i].done && (mask >> i % 32 & 1);
    if (barrier.waiting >= alive) barrier = {0, times + 1}, moved = true;
    else hostcuda_switch(&fibers[current].sp, scheduler);
  }
}
API void hostcuda_sync_block() { wait_at(of_block, 0, threads, ~0u); }
API void hostcuda_sync_warp(unsigned mask) { wait_at(of_warp[current / 32], current / 32 * 32, current / 32 * 32 + 32, mask); }
API unsigned hostcuda_lane() { return current % 32; }
API void* hostcuda_exchanged(unsigned lane) { return exchanged[current / 32 * 32 + lane]; }
API bool hostcuda_block(void (*kernel)(), const unsigned* size, unsigned* index) {
  body = kernel, threads = size[0] * size[1] * size[2], of_block = {};
  std::fill(of_warp, of_warp + 32, Barrier{});
  while (fibers.size() < threads) fibers.push_back({nullptr, (char*)aligned_alloc(64, STACK), false});
  for (unsigned i = 0; i < threads; i++) {
    void** top = (void**)(fibers[i].stack + STACK) - 2;  // as after a call: aligned to 16, less a return address
    *top = (void*)run_thread;
    fibers[i].sp = top - 6, fibers[i].done = false;
  }
  for (unsigned left = threads; left;) {
    moved = false, left = 0;
    for (current = 0; current < threads; current++) {
      if (fibers[current].done) continue;
      index[0] = current % size[0], index[1] = current / size[0] % size[1], index[2] = current / size[0] / size[1];
      hostcuda_switch(&scheduler, fibers[current].sp);
      left += !fibers[current].done;
    }
    if (left && !moved) return false;
  }
  return true;
}

// ---------------------------------------------------------------------- the driver

struct Function {
  bool (*run)(void** arguments, const unsigned* grid, const unsigned* block);
  Text name;
};
static std::mutex launching;  // one kernel at a time: the index of a thread is a variable of its library

API int cuModuleLoadData(void** module, const char* path) {
  if ((*module = dlopen(path, RTLD_NOW | RTLD_LOCAL))) return 0;
  return fprintf(stderr, "hostcuda: %s: CUPY_CACHE_DIR and HOSTCUDA_KERNELS belong together\n", dlerror()), 200;
}
API int cuModuleGetFunction(Function** f, void* module, const char* name) {
  *f = new Function{nullptr, name};
  *(void**)&(*f)->run = dlsym(module, ((*f)->name + "__run").c_str());
  return (*f)->run ? 0 : 500;  // CUDA_ERROR_NOT_FOUND
}
API int cuLaunchKernel(Function* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                       void*, void** arguments, void**) {
  unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
  count(KERNELS, f->name.c_str());
  std::lock_guard<std::mutex> one(launching);
  if (f->run(arguments, grid, block)) return 0;
  fprintf(stderr, "hostcuda: the threads of %s wait for each other at different places\n", f->name.c_str());
  return 719;  // CUDA_ERROR_LAUNCH_FAILED
}
API int cuGetErrorName(int, const char** s) { return *s = "CUDA_ERROR", 0; }
API int cuGetErrorString(int, const char** s) { return *s = "see what hostcuda writes to stderr", 0; }

// ---------------------------------------------------------------------- cuBLAS: column-major, float16 in float32

struct Half {
  unsigned short bits;
  Half(float value = 0) : bits(_cvtss_sh(value, 0)) {}
  operator float() const { return _cvtsh_ss(bits); }
};
API int cublasCreate_v2(void** h) { return *h = new int, 0; }
API int cublasGetMathMode(void*, int* mode) { return *mode = 0, 0; }

template <class T> struct Matrices {  // a batch of them
  T* data;
  int step;         // between two columns
  long long apart;  // between two matrices
};
// C = alpha op(A) op(B) + beta C for all of a batch, summed in S; op transposes where ta, tb are not 0
template <class T, class S, class F>
static int product(int ta, int tb, int m, int n, int k, F alpha, Matrices<const T> a, Matrices<const T> b, F beta,
                   Matrices<T> c, int batch = 1) {
  count(PRODUCTS, "product");
  std::vector<S> left((size_t)m * k), column(m);
  for (const T *A = a.data, *B = b.data; batch--; A += a.apart, B += b.apart, c.data += c.apart) {
    for (int p = 0; p < k; p++)
      for (int i = 0; i < m; i++) left[i + (size_t)p * m] = ta ? A[p + (size_t)i * a.step] : A[i + (size_t)p * a.step];
    for (int j = 0; j < n; j++) {
      std::fill(column.begin(), column.end(), S(0));
      for (int p = 0; p < k; p++) {
        const S factor = tb ? B[j + (size_t)p * b.step] : B[p + (size_t)j * b.step], *entry = &left[(size_t)p * m];
        for (int i = 0; i < m; i++) column[i] += entry[i] * factor;
      }
      T* out = c.data + (size_t)j * c.step;
      for (int i = 0; i < m; i++) out[i] = S(alpha) * column[i] + (beta == 0 ? S(0) : S(beta) * S(out[i]));
    }
  }
  return 0;
}
API int cublasGemmStridedBatchedEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, const void* A, int type,
                                   int lda, long long sa, const void* B, int type_b, int ldb, long long sb,
                                   const void* beta, void* C, int type_c, int ldc, long long sc, int batch, int compute,
                                   int) {
#define RUN(T, S, F) product<T, S, F>(ta, tb, m, n, k, *(F*)alpha, {(T*)A, lda, sa}, {(T*)B, ldb, sb}, *(F*)beta, \
                                      {(T*)C, ldc, sc}, batch)
  const int F32 = 0, F64 = 1, F16 = 2;  // cudaDataType
  if (type != type_b || type != type_c || type > F16)
    return fprintf(stderr, "hostcuda: no product of types %d and %d into %d\n", type, type_b, type_c), 15;
  if (type == F64) return RUN(double, double, double);
  if (type == F32) return RUN(float, float, float);
  return compute == F16 || compute == 64 ? RUN(Half, float, Half) : RUN(Half, float, float);  // 64: COMPUTE_16F
}
#define SIZES void *h, int ta, int tb, int m, int n, int k
API int cublasGemmEx(SIZES, const void* alpha, const void* A, int type, int lda, const void* B, int type_b, int ldb,
                     const void* beta, void* C, int type_c, int ldc, int compute, int) {
  return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, A, type, lda, 0, B, type_b, ldb, 0, beta, C, type_c, ldc, 0,
                                    1, compute, 0);
}
#define PRODUCTS_OF(P, T)                                                                                             \
  API int cublas##P##gemm_v2(SIZES, const T* alpha, const T* A, int lda, const T* B, int ldb, const T* beta, T* C,    \
                             int ldc) {                                                                               \
    return product<T, T, T>(ta, tb, m, n, k, *alpha, {A, lda, 0}, {B, ldb, 0}, *beta, {C, ldc, 0});                   \
  }                                                                                                                   \
  API int cublas##P##gemmStridedBatched(SIZES, const T* alpha, const T* A, int lda, long long sa, const T* B, int ldb,\
                                        long long sb, const T* beta, T* C, int ldc, long long sc, int batch) {        \
    return product<T, T, T>(ta, tb, m, n, k, *alpha, {A, lda, sa}, {B, ldb, sb}, *beta, {C, ldc, sc}, batch);         \
  }                                                                                                                   \
  API int cublas##P##gemmBatched(SIZES, const T* alpha, const T** A, int lda, const T** B, int ldb, const T* beta,    \
                                 T** C, int ldc, int batch) {                                                         \
    for (; batch--; A++, B++, C++)                                                                                    \
      product<T, T, T>(ta, tb, m, n, k, *alpha, {*A, lda, 0}, {*B, ldb, 0}, *beta, {*C, ldc, 0});                     \
    return 0;                                                                                                         \
  }
PRODUCTS_OF(S, float)
PRODUCTS_OF(D, double)

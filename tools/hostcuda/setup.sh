#!/usr/bin/env bash
# Real CuPy on a machine without a GPU:  tools/hostcuda/setup.sh FOLDER && . FOLDER/activate && python -m pytest -m gpu
# Needs g++, Python with venv, x86-64 Linux, and half a minute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/build/include" "$1/include" "$1/kernels" "$1/lib"
home=$(cd "$1" && pwd)
cupy=14.2.0 cuda=12.9
flags="-std=c++17 -w -fPIC -mf16c"

python3 -m venv "$home/venv"
python=$home/venv/bin/python
pip="$home/venv/bin/pip -q --disable-pip-version-check"
$pip install numpy tqdm 'pytest>=8' "cupy-cuda12x==$cupy" 'cython==3.2.*' setuptools \
    "nvidia-cuda-runtime-cu12==$cuda.*" "nvidia-cuda-nvcc-cu12==$cuda.*"
ask() { "$python" -c "import sysconfig as s; print(s.$1)"; }
site=$(ask 'get_path("purelib")')
headers="-I$site/nvidia/cuda_runtime/include -I$site/nvidia/cuda_nvcc/include"
runtime=cupy_backends/cuda/api/runtime

# The wheel has the CUDA runtime linked in. The one module of CuPy that calls it is built again, to be linked to ours.
CUPY_INSTALL_USE_STUB=1 $pip download --no-deps --no-binary cupy -d "$home/build" "cupy==$cupy" >/dev/null
tar xzf "$home/build/cupy-$cupy.tar.gz" -C "$home/build" --strip-components=1
cd "$home/build"
echo 'extern "C" { int cudaProfilerStart(void); int cudaProfilerStop(void); }' >include/cuda_profiler_api.h
constants=CUPY_CUDA_VERSION=12090,CUPY_HIP_VERSION=0,CUPY_USE_CUDA_PYTHON=0,CUPY_CUFFT_STATIC=0
"$home/venv/bin/cython" -3 --cplus -I . -E $constants $runtime.pyx -o $runtime.cpp 2>cython.log || { cat cython.log; exit 1; }
g++ $flags -O1 -I. -Icupy_backends -Iinclude $headers -I"$(ask 'get_path("include")')" -c $runtime.cpp -o runtime.o

# Every other CUDA function that CuPy's modules name becomes one that does nothing, or says that it is not there.
g++ $flags -O3 $headers -c "$here/hostcuda.cpp" -o hostcuda.o
nothing='cublas(Destroy|Set)|cu(Module|Ctx|Func|DevicePrimaryCtx)(Unload|Set|Release)|cudaGetLastError|EnablePeerAccess|'
nothing+='cudaHost(Unr|R)egister|cuda(Stream|Event)(Destroy|Record|Query|WaitEvent|GetFlags|GetPriority)'
{ nm -D --undefined-only $(find "$site/cupy" "$site/cupy_backends" -name '*.so') 2>/dev/null || true; nm --undefined-only runtime.o; } |
    awk '{print $2}' | sed 's/@.*//' | grep -E '^(cuda|cublas|nvrtc|cu[A-Z])' |
    cat - <(printf '%s\n' cuModuleUnload cuCtxSetCurrent cuFuncSetAttribute cuDevicePrimaryCtxRelease_v2) | sort -u >named
nm hostcuda.o | awk '$2 == "T" {print $3}' | sort -u | comm -23 named - | while read -r name; do
    if [[ $name =~ $nothing ]]; then
        echo "int $name() { return 0; }"
    else
        code=801  # not supported: of CUDA, and of cuBLAS
        [[ $name == cublas* ]] && code=15
        echo "int $name() { fprintf(stderr, \"hostcuda: there is no $name\\n\"); return $code; }"
    fi
done | cat <(echo '#include <stdio.h>') - >stubs.c
gcc -fPIC -c stubs.c -o stubs.o

lib=$home/lib preload=$home/lib/libhostcuda.so
link="-L$lib -Wl,--no-as-needed -lhostcuda -Wl,-rpath,$lib"
g++ -shared -o "$preload" hostcuda.o stubs.o -ldl -Wl,-soname,libhostcuda.so
for name in libcuda.so.1 libcudart.so.12 libnvrtc.so.12 libcublas.so.12 libcublasLt.so.12 libcufft.so.11 \
    libcurand.so.10 libcusolver.so.11 libcusparse.so.12 libnvJitLink.so.12; do
    g++ -shared -o "$lib/$name" -Wl,-soname,$name $link
    preload+=" $lib/$name"
done
g++ -shared -o "$site/$runtime$(ask 'get_config_var("EXT_SUFFIX")')" runtime.o $link

# Kernels are compiled with these flags, which a precompiled prelude must share.
flags+=" -O1 -ffp-contract=off $headers"
cp "$here/prelude.h" "$home/include"
g++ $flags -x c++-header "$home/include/prelude.h" -o "$home/include/prelude.h.gch"
cat >"$home/activate" <<A
# . this file: the python of this folder sees one CUDA device, which is the host
. "$home/venv/bin/activate"
export LD_LIBRARY_PATH="$lib" LD_PRELOAD="$preload"
export CUDA_PATH="$site/nvidia/cuda_runtime" CUPY_ACCELERATORS= CUPY_CACHE_DIR="$home/kernels/cupy"
export HOSTCUDA_KERNELS="$home/kernels" HOSTCUDA_INCLUDE="$home/include" HOSTCUDA_FLAGS="$flags"
A
cd "$home"
rm -rf build kernels/cupy  # CuPy's own cache names kernels that an older prelude may have made
. "$home/activate"
python -c "
import cupy
x = cupy.arange(6, dtype='f4').reshape(2, 3)
assert (x.dot(x.T).get() == [[5, 14], [14, 50]]).all() and float((x + 1).sum()) == 21
print('CuPy', cupy.__version__, 'computes on', cupy.cuda.runtime.getDeviceProperties(0)['name'].decode())"

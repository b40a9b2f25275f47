// What the kernels of local attention are written in: types, copies of 16 bytes, tensor cores, sums
// over lanes. Everything that only a GPU has (PTX, dynamic shared memory) is in the first block;
// tests build the rest for a CPU.
#pragma once

#ifdef __CUDACC__

struct Half { unsigned short bits; };
struct Bfloat { unsigned short bits; };
struct Tf32 { unsigned bits; };                 // of a float, of whose mantissa 10 bits are left

__device__ inline float widen(Half x)
{
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}

__device__ inline void narrow(float x, Half &to)
{
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}
__device__ inline void narrow(float x, Bfloat &to)
{
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}
__device__ inline void narrow(float x, Tf32 &to)
{
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(to.bits) : "f"(x));
}

// To 2 units in the last place or so, of what it is at most; 0 where it would be denormal.
__device__ inline float exponential(float x)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.4426950408889634f));
    return power;
}

// The same number, but what was computed from it before is computed again: cheaper than registers
// to keep it in.
__device__ inline int fresh(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

// 16 bytes from global to shared memory, not waiting for them; zeros if not `inside`.
__device__ inline void copy_16(void *to, const void *from, bool inside)
{
    const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
}

// Wait for all copies of this thread.
__device__ inline void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// sums += a b by tensor cores, for all lanes of a warp together: 16 x 8 sums of 8 products, of 16
// in half types. Who has which row and column: PTX ISA, "Matrix Fragments for mma.m16n8k8" and
// "mma.m16n8k16".
#define MULTIPLY_ADD(type, shape_and_types)                                                        \
    __device__ inline void multiply_add(                                                           \
        type, float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2])                    \
    {                                                                                              \
        asm volatile("mma.sync.aligned." shape_and_types                                           \
                     " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));          \
    }
MULTIPLY_ADD(Tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
MULTIPLY_ADD(Bfloat, "m16n8k16.row.col.f32.bf16.bf16.f32")
MULTIPLY_ADD(Half, "m16n8k16.row.col.f32.f16.f16.f32")

__device__ inline unsigned char *shared_memory()
{
    extern __shared__ __align__(16) unsigned char pool[];
    return pool;
}

#endif

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(Bfloat x)
{
    return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ inline void narrow(float x, float &to) { to = x; }

struct alignas(8) Four { unsigned low, high; };      // two of 16 bits each
struct alignas(16) Vector { unsigned words[4]; };

// Four channels from memory of any kind; `from` is aligned to four of them.
__device__ inline float4 load(const float *from) { return *reinterpret_cast<const float4 *>(from); }

template <class T> __device__ T half_of(unsigned x) { return T{static_cast<unsigned short>(x)}; }

template <class T> __device__ float4 load(const T *from)
{
    const Four raw = *reinterpret_cast<const Four *>(from);
    return make_float4(widen(half_of<T>(raw.low)), widen(half_of<T>(raw.low >> 16)),
                       widen(half_of<T>(raw.high)), widen(half_of<T>(raw.high >> 16)));
}

__device__ inline void store(float *to, float4 x) { *reinterpret_cast<float4 *>(to) = x; }

template <class T> __device__ void store(T *to, float4 x)
{
    T narrowed[4];
    narrow(x.x, narrowed[0]), narrow(x.y, narrowed[1]), narrow(x.z, narrowed[2]),
        narrow(x.w, narrowed[3]);
    *reinterpret_cast<Four *>(to) = {
        narrowed[0].bits | static_cast<unsigned>(narrowed[1].bits) << 16,
        narrowed[2].bits | static_cast<unsigned>(narrowed[3].bits) << 16};
}

__device__ inline float dot(float4 a, float4 b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ inline float4 axpy(float a, float4 x, float4 y)
{
    return make_float4(fmaf(a, x.x, y.x), fmaf(a, x.y, y.y), fmaf(a, x.z, y.z), fmaf(a, x.w, y.w));
}

__device__ inline float4 scaled(float a, float4 x)
{
    return make_float4(a * x.x, a * x.y, a * x.z, a * x.w);
}

__device__ inline float4 plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

constexpr unsigned WARP = 0xffffffffu;

struct Sum { __device__ float operator()(float a, float b) const { return a + b; } };
struct Max { __device__ float operator()(float a, float b) const { return fmaxf(a, b); } };

// One of two halves is kept, the other goes to the lane that differs in `bit`, whose half comes
// back and is joined.
template <int N, class Join>
__device__ void fold(const float (&x)[2 * N], float (&to)[N], int bit, Join join)
{
    const bool upper = threadIdx.x & bit;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float kept = upper ? x[i + N] : x[i], sent = upper ? x[i] : x[i + N];
        to[i] = join(kept, __shfl_xor_sync(WARP, sent, bit));
    }
}

// Lane l gets the l % 8th of eight numbers, joined over all lanes of its group of `LANES`.
template <int LANES, class Join> __device__ float joined(const float (&x)[8], Join join)
{
    float four[4], two[2], one[1];
    fold(x, four, 4, join);
    fold(four, two, 2, join);
    fold(two, one, 1, join);
#pragma unroll
    for (int bit = 8; bit < LANES; bit *= 2)
        one[0] = join(one[0], __shfl_xor_sync(WARP, one[0], bit));
    return one[0];
}

// What the lane of this group of eight holds that `joined` gave the element's number to.
__device__ inline float of_element(float x, int element)
{
    return __shfl_sync(WARP, x, (threadIdx.x & 24) | element);
}

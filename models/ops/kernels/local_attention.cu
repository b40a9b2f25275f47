// Local attention over several frames, forward and backward, without ever storing its weights.
// What it computes: models/ops/local_attention.py. Who launches it: models/ops/cuda_kernels.py.
//
// Four passes are one algorithm, in float whatever the maps are stored in. A block has a tile of
// pixels, 8 in a row, and visits the rows of cells that they see, in all frames. A visit has two
// halves:
//
//   score        products of the tile's pixels and the row's cells over channels:
//                a lane has 8 pixels x 4 cells
//   accumulate   sums of what the cells hold, weighted by what the scores became:
//                a lane has 8 pixels x 4 or 8 channels
//
//   pass        tile of      cells of           scores           weight of a cell        sums
//   READ        queries      T frames           q k              p, softmax on the fly   v
//   OF_QUERY    queries      T frames           q k, g v         p (g v), and p          k
//   OF_KEY      keys, one t  queries            k q, v g         p (v g - delta)         q
//   OF_VALUE    keys, one t  queries            k q              p                       g
//
// with g the gradient of the read, p = exp(q k - largest) / sum, delta = sum of p (g v) over all
// cells of a query, and the gradient of the query = sum p (g v) k - delta sum p k. Scores are
// summed in the same order in all passes, so they are the same to the bit: a weight of exactly 1
// stays one, and its key's gradient is exactly 0. Nothing is added atomically, so results do not
// vary from run to run. A fifth pass, TENSOR_READ, differs from READ in the sums: they are of
// rounded weights and values, by tensor cores (tensor_read.cuh).
//
// Taps outside the map have logit 0 and value 0: the softmax of a pixel that has some begins at a
// largest logit of 0 and a sum of as many; likewise with the constant. They are never visited. A
// cell outside a pixel's window but in that of another pixel of the tile gets the weight 0.
#include "softmax.cuh"

template <> __device__ void Worker<READ>::run()
{
    Payload sums = {};
    Softmax softmax;                                    // of the lane's pixel
    if (split == 0)
        softmax = unvisited(problem, top + row, left + in_group % 8);
    prepare();
    for (int stage = 0; stage < stages;) {
        const bool any = __any_sync(WARP, sees(row, visit_of(stage)));
        float scores[8 * KEPT];
        score(typename P::Keys(), 0, any, stage, scores);
        if (!any)
            continue;
        const Visit at = visit_of(fresh(stage) - P::STAGES);
        const float factor = softmax.grow(*this, at, scores);
        if (__any_sync(WARP, factor != 1)) {
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                const float of = of_element(factor, e);
#pragma unroll
                for (int n = 0; n < P::VECTORS; ++n)
                    sums[n][e] = scaled(of, sums[n][e]);
            }
        }
        softmax.weigh(scores);
        hand_over(scores, 0);
        __syncwarp();
        accumulate(typename P::Values(), at, sums);
    }
    const float largest = over_splits(softmax.largest, Max()),
                factor = exponential(softmax.largest - largest);
    const float inverse = 1 / over_splits(softmax.sum * factor, Sum());
#pragma unroll
    for (int e = 0; e < 8; ++e)
#pragma unroll
        for (int n = 0; n < P::VECTORS; ++n)
            sums[n][e] = scaled(of_element(factor, e), sums[n][e]);
    join_splits(sums);
#pragma unroll
    for (int e = 0; e < 8; ++e)
#pragma unroll
        for (int n = 0; n < P::VECTORS; ++n)
            sums[n][e] = scaled(of_element(inverse, e), sums[n][e]);
    if (split > 0)
        return;
    write<VALUE>(sums, P::VECTORS);
    if (block == 0 && part == 0 && own_pixel() >= 0)
        problem.softmax[own_pixel()] = make_float2(largest, inverse);
}

template <> __device__ void Worker<OF_QUERY>::run()
{
    Payload sums = {};
    const float2 softmax = own_pixel() < 0 ? make_float2(0, 0) : problem.softmax[own_pixel()];
    float delta = 0;
    prepare();
    for (int stage = 0; stage < stages;) {
        const bool any = __any_sync(WARP, sees(row, visit_of(stage)));
        float weights[8 * KEPT], products[8 * KEPT], total[8];
        score(typename P::Keys(), 0, any, stage, weights);
        score(typename P::Values(), P::AT_VALUES, any, stage, products);
        if (!any)
            continue;
        const Visit at = visit_of(fresh(stage) - P::STAGES);
        const bool seen = sees(row, at);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float largest = of_element(softmax.x, e), inverse = of_element(softmax.y, e);
            total[e] = 0;
#pragma unroll
            for (int i = 0; i < KEPT; ++i) {
                float &weight = weights[i * 8 + e], &product = products[i * 8 + e];
                weight = within(i, e, at, seen) ? exponential(weight - largest) * inverse : 0;
                product = within(i, e, at, seen) ? product * weight : 0;
                total[e] += product;
            }
        }
        delta += joined<LANES>(total, Sum());
        hand_over(products, 0);
        hand_over(weights, 1);
        __syncwarp();
        accumulate(typename P::Keys(), at, sums);
    }
    delta = over_splits(delta, Sum());
    join_splits(sums);
#pragma unroll
    for (int e = 0; e < 8; ++e) {  // not fused: equal products must cancel to 0
        const float of = of_element(delta, e);
        float4 &x = sums[0][e], y;
        if constexpr (P::VECTORS == 2)
            y = sums[1][e];
        else
            y = make_float4(
                __shfl_xor_sync(WARP, x.x, LANES / 2), __shfl_xor_sync(WARP, x.y, LANES / 2),
                __shfl_xor_sync(WARP, x.z, LANES / 2), __shfl_xor_sync(WARP, x.w, LANES / 2));
        x = make_float4(__fsub_rn(x.x, __fmul_rn(of, y.x)), __fsub_rn(x.y, __fmul_rn(of, y.y)),
                        __fsub_rn(x.z, __fmul_rn(of, y.z)), __fsub_rn(x.w, __fmul_rn(of, y.w)));
    }
    if (split > 0)
        return;
    write<KEY>(sums, set_of(0) == 0);
    if (block == 0 && part == 0 && own_pixel() >= 0)
        problem.delta[own_pixel()] = delta;
}

template <> __device__ void Worker<OF_KEY>::run()
{
    Payload sums = {};
    prepare();
    for (int stage = 0; stage < stages;) {
        const bool any = __any_sync(WARP, sees(row, visit_of(stage)));
        float weights[8 * KEPT], products[8 * KEPT];
        score(typename P::Keys(), 0, any, stage, weights);
        score(typename P::Values(), P::AT_VALUES, any, stage, products);
        if (!any)
            continue;
        const Visit at = visit_of(fresh(stage) - P::STAGES);
        const bool seen = sees(row, at);
        const long long line = cell(at.y, 0);
#pragma unroll
        for (int i = 0; i < KEPT; ++i) {
            const int x = min(max(at.x + cell_of(i), 0), problem.width - 1);
            const float2 softmax = problem.softmax[line + x];
            const float delta = problem.delta[line + x];
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float &weight = weights[i * 8 + e];
                weight = within(i, e, at, seen)
                         ? exponential(weight - softmax.x) * softmax.y
                           * (products[i * 8 + e] - delta)
                         : 0;
            }
        }
        hand_over(weights, 0);
        __syncwarp();
        accumulate(typename P::Keys(), at, sums);
    }
    join_splits(sums);
    if (split == 0)
        write<KEY>(sums, P::VECTORS);
}

template <> __device__ void Worker<OF_VALUE>::run()
{
    Payload sums = {};
    prepare();
    for (int stage = 0; stage < stages;) {
        const bool any = __any_sync(WARP, sees(row, visit_of(stage)));
        float weights[8 * KEPT];
        score(typename P::Keys(), 0, any, stage, weights);
        if (!any)
            continue;
        const Visit at = visit_of(fresh(stage) - P::STAGES);
        const bool seen = sees(row, at);
        const float2 *line = problem.softmax + cell(at.y, 0);
#pragma unroll
        for (int i = 0; i < KEPT; ++i) {
            const float2 softmax = line[min(max(at.x + cell_of(i), 0), problem.width - 1)];
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                float &weight = weights[i * 8 + e];
                weight = within(i, e, at, seen) ? exponential(weight - softmax.x) * softmax.y : 0;
            }
        }
        hand_over(weights, 0);
        __syncwarp();
        accumulate(typename P::Values(), at, sums);
    }
    join_splits(sums);
    if (split == 0)
        write<VALUE>(sums, P::VECTORS);
}

// The grid: tiles in a row, rows of tiles, maps (of keys and values: batch times frames) times
// blocks of channels.
#define PASS_KERNEL(name, pass, worker)                                                            \
    extern "C" __global__ void __launch_bounds__(Plan<pass>::THREADS, Plan<pass>::RESIDENTS)       \
    name(const __grid_constant__ Problem problem)                                                  \
    {                                                                                              \
        worker(problem).run();                                                                     \
    }

PASS_KERNEL(read_memory, READ, Worker<READ>)
PASS_KERNEL(gradient_of_query, OF_QUERY, Worker<OF_QUERY>)
PASS_KERNEL(gradient_of_keys, OF_KEY, Worker<OF_KEY>)
PASS_KERNEL(gradient_of_values, OF_VALUE, Worker<OF_VALUE>)

// For the launcher, per pass: threads, bytes of shared memory, height of a tile, blocks of
// channels; zeros where this build does not have it.
#define PLAN(pass) {Plan<pass>::THREADS, Plan<pass>::SHARED, Plan<pass>::HEIGHT, Plan<pass>::BLOCKS}
#if WIDE
#include "tensor_read.cuh"
PASS_KERNEL(read_memory_tensor, TENSOR_READ, TensorRead)
#define TENSOR_PLAN PLAN(TENSOR_READ)
#else
#define TENSOR_PLAN {0, 0, 0, 0}
#endif
extern "C" __device__ const int plans[5][4] = {
    PLAN(READ), PLAN(OF_QUERY), PLAN(OF_KEY), PLAN(OF_VALUE), TENSOR_PLAN};

/* SPDX-License-Identifier: Apache-2.0 */
/* Flash crowds in the small world: how long, how many bytes from the origin and across zones. */
#include "transfer_world.h"

static void report(const struct w_world *world, const char *name, double bound_s)
{
    struct w_times times = w_times_of(world);
    double blob_bytes = 0;
    for (uint32_t i = 0; i < world->blob_count; i++)
        blob_bytes += (double)world->blobs[i].size_bytes;
    print_message("figure: %s p50 %.3f p99 %.3f last %.3f of bound %.2f s, origin %.3f copies, "
                  "cross-zone %.3f, wasted %.4f, datagrams/node %.0f\n",
                  name, times.p50 / bound_s, times.p99 / bound_s, times.last / bound_s, bound_s,
                  (double)world->origin_bytes / blob_bytes, (double)world->cross_bytes / blob_bytes,
                  (double)world->wasted_bytes / blob_bytes / world->config.nodes,
                  (double)world->datagrams / world->config.nodes);
}

static void flash(void **state)
{
    (void)state;
    const char *n = getenv("N"), *z = getenv("Z"), *mb = getenv("MB"), *r = getenv("R"),
               *o = getenv("O");
    uint64_t seed = w_seed(1);
    double rate = r ? atof(r) : 100;
    struct w_config config =
        w_defaults(seed, n ? (uint32_t)atoi(n) : 16, z ? (uint32_t)atoi(z) : 2, rate);
    config.origin_rate = (o ? atof(o) : 10) * rate * W_MBIT;
    if (getenv("SLOTS"))
        config.transfer.upload_slots = (unsigned)atoi(getenv("SLOTS"));
    if (getenv("D"))
        config.transfer.inflight = (unsigned)atoi(getenv("D"));
    struct w_world *world = w_new(&config);
    uint64_t size = (mb ? (uint64_t)atoi(mb) : 128) * (uint64_t)W_MIB;
    uint32_t blob = w_add_blob(world, size);
    for (uint32_t i = 0; i < config.nodes; i++)
        w_pull_at(world, i, blob, 0, TRANSFER_READ_STREAM);
    w_run(world, 300 * (uint64_t)W_S);
    double bound = (double)size / config.down_rate;
    if ((double)size / config.origin_rate > bound)
        bound = (double)size / config.origin_rate;
    report(world, "flash", bound);
    w_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(flash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

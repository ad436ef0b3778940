/* SPDX-License-Identifier: Apache-2.0 */
/* Facts of a world and what must not be among them; see checkers.h. */
#include "checkers.h"

#include <inttypes.h>

uint32_t checkers_views(struct world *world, uint32_t node_count, uint32_t *live)
{
    uint32_t up = 0, agreeing = 0;
    for (uint32_t node = 0; node < node_count; node++)
        up += world_node_up(world, node);
    for (uint32_t node = 0; node < node_count; node++)
        if (world_node_up(world, node))
            agreeing += gossip_count(mesh_gossip(world_mesh(world, node))) == up;
    *live = up;
    return agreeing;
}

uint64_t checkers_bad_pulls(const struct world *world, size_t from)
{
    size_t count;
    uint64_t bad = 0;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = from; i < count; i++)
        bad += pulls[i].done_us == 0 || pulls[i].failed;
    return bad;
}

/* Has the node all of the blob, by its transfer's own map? */
static bool is_whole(struct world *world, const struct world_pull *pull)
{
    const struct transfer *transfer = mesh_transfer(world_mesh(world, pull->node));
    blob_handle handle = transfer_blob_find(transfer, &world_blob(world, pull->blob)->key);
    const struct bitfield *have = handle == 0 ? NULL : transfer_blob_have(transfer, handle);
    return have != NULL && bitfield_full(have);
}

uint64_t checkers_holed_pulls(struct world *world, const bool *died)
{
    size_t count;
    uint64_t holed = 0;
    const struct world_pull *pulls = world_pulls(world, &count);
    for (size_t i = 0; i < count; i++) {
        const struct world_pull *pull = &pulls[i];
        if (pull->done_us == 0 || pull->failed || !world_node_up(world, pull->node) ||
            (died != NULL && died[pull->node]))
            continue;
        holed += !is_whole(world, pull);
    }
    return holed;
}

void checkers_look(struct world *world, uint32_t node_count, struct checkers_facts *facts)
{
    for (uint32_t node = 0; node < node_count; node++) {
        struct transfer_stats stats;
        if (!world_node_up(world, node))
            continue;
        transfer_stats(mesh_transfer(world_mesh(world, node)), &stats);
        if (stats.inflight > facts->most_inflight)
            facts->most_inflight = stats.inflight;
    }
}

void checkers_gather(struct world *world, uint32_t node_count, const bool *died,
                     struct checkers_facts *facts)
{
    const struct world_totals *totals = world_totals(world);
    double node_seconds = (double)world_now_us(world) / 1e6 * node_count;
    facts->wrong_bytes = totals->wrong_bytes;
    facts->leaks = totals->leaks;
    facts->double_reads = totals->double_reads;
    facts->crossed_bytes = totals->crossed_bytes;
    facts->most_uploads = totals->most_uploads;
    facts->most_reads = totals->most_reads;
    facts->holed = checkers_holed_pulls(world, died);
    facts->agreeing = checkers_views(world, node_count, &facts->live);
    facts->control_bps = node_seconds > 0 ? (double)totals->datagram_bytes / node_seconds : 0;
}

uint32_t checkers_judge(const struct checkers_facts *facts)
{
    const bool bad[CHECKER_COUNT] = {
        [CHECKER_PULLS_END] = facts->stuck > 0,
        [CHECKER_RETRIES_END] = facts->failed_again > 0,
        [CHECKER_WRONG_BYTES] = facts->wrong_bytes > 0,
        [CHECKER_WHOLE_BLOBS] = facts->holed > 0,
        [CHECKER_VIEWS] = facts->agreeing != facts->live,
        [CHECKER_ORIGIN] = facts->origin_copies > facts->origin_allowed,
        [CHECKER_CONTROL] = facts->control_bps > CHECKERS_CONTROL_BPS,
        [CHECKER_LEAKS] = facts->leaks > 0,
        [CHECKER_BUDGETS] = facts->most_uploads > facts->uploads_allowed ||
                            facts->most_reads > CHECKERS_READS ||
                            facts->most_inflight > CHECKERS_INFLIGHT,
        [CHECKER_OWNERS] = facts->double_reads > 0,
        [CHECKER_BORDERS] = facts->crossed_bytes > 0,
    };
    uint32_t mask = 0;
    for (unsigned i = 0; i < CHECKER_COUNT; i++)
        mask |= bad[i] ? 1U << i : 0;
    return mask;
}

static void explain(const struct checkers_facts *facts, enum checker which, FILE *to)
{
    switch (which) {
    case CHECKER_PULLS_END:
        fprintf(to, "%" PRIu64 " pulls stuck, or failed without a cause\n", facts->stuck);
        break;
    case CHECKER_RETRIES_END:
        fprintf(to, "%" PRIu64 " retries or later pulls failed though the storm was over\n",
                facts->failed_again);
        break;
    case CHECKER_WRONG_BYTES:
        fprintf(to, "%" PRIu64 " wrong bytes taken\n", facts->wrong_bytes);
        break;
    case CHECKER_WHOLE_BLOBS:
        fprintf(to, "%" PRIu64 " pulls ended well on nodes that lack a piece\n", facts->holed);
        break;
    case CHECKER_VIEWS:
        fprintf(to, "%u of %u live nodes see exactly the live nodes\n", facts->agreeing,
                facts->live);
        break;
    case CHECKER_ORIGIN:
        fprintf(to, "%.2f copies from the origin, %.2f allowed\n", facts->origin_copies,
                facts->origin_allowed);
        break;
    case CHECKER_CONTROL:
        fprintf(to, "%.0f bytes of datagrams per node and second, %d allowed\n", facts->control_bps,
                CHECKERS_CONTROL_BPS);
        break;
    case CHECKER_LEAKS:
        fprintf(to, "%" PRIu64 " messages with a private name or a digest in them\n", facts->leaks);
        break;
    case CHECKER_BUDGETS:
        fprintf(to,
                "a node had %u uploads (%u allowed), %u reads from the origin (%d), %u requests "
                "(%d)\n",
                facts->most_uploads, facts->uploads_allowed, facts->most_reads, CHECKERS_READS,
                facts->most_inflight, CHECKERS_INFLIGHT);
        break;
    case CHECKER_OWNERS:
        fprintf(to, "%" PRIu64 " pieces read twice at the same time by one node\n",
                facts->double_reads);
        break;
    case CHECKER_BORDERS:
        fprintf(to, "%" PRIu64 " bytes over borders that were to be kept\n", facts->crossed_bytes);
        break;
    case CHECKER_COUNT:
        break;
    }
}

void checkers_explain(const struct checkers_facts *facts, uint32_t bad, const char *prefix,
                      FILE *to)
{
    for (unsigned i = 0; i < CHECKER_COUNT; i++) {
        if ((bad & 1U << i) == 0)
            continue;
        fputs(prefix, to);
        explain(facts, (enum checker)i, to);
    }
}

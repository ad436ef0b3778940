/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of topology sources: whatever comes, labels are labels, or nothing is taken. The first
 * byte chooses the parser.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/topology_parse.h"
#include "log.h"

static void check(const struct topology *got)
{
    const struct label *labels[] = {&got->region, &got->zone, &got->vswitch};
    for (unsigned i = 0; i < 3; i++) {
        struct label again;
        memset(&again, 0, sizeof again);
        ASSERT(memchr(labels[i]->text, '\0', sizeof labels[i]->text) != NULL);
        ASSERT(label_set(&again, labels[i]->text, strlen(labels[i]->text)) == 0);
        ASSERT(memcmp(&again, labels[i], sizeof again) == 0); /* tails are zero */
    }
}

static void parse(unsigned which, const char *text, size_t bytes)
{
    struct topology got = {0};
    struct topology_prefix prefix = {.block.bits = 0};
    struct peer_addr addr = {.port = 1};
    switch (which % 6) {
    case 0:
        (void)topology_parse_label_file(text, bytes, "vsw", &got);
        break;
    case 1:
        if (topology_parse_node(text, bytes, "vsw", &got) != 0)
            memset(&got, 0, sizeof got);
        break;
    case 2:
        if (topology_parse_azure(text, bytes, &got) == 0)
            ASSERT(got.region.text[0] != '\0');
        break;
    case 3:
        if (topology_parse_gcp(text, &got) == 0)
            ASSERT(got.zone.text[0] != '\0' && got.region.text[0] != '\0');
        break;
    case 4:
        if (topology_prefix_parse(text, &prefix) != 0)
            break;
        memcpy(addr.ip, prefix.block.ip, sizeof addr.ip);
        ASSERT(prefix.block.bits <= 128 && topology_prefix_fits(&prefix, &addr));
        got = prefix.topology;
        break;
    default:
        if (topology_label(&got.zone, text) == 0)
            ASSERT(got.zone.text[0] != '\0');
        break;
    }
    check(&got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size); /* so that a read past the end is seen */
    if (text == NULL)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    parse(data[0], text, size - 1);
    free(text);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file says of ACR instances: whatever it is, only names that requests may have are taken,
 * and what was taken is said again word for word.
 */
#include "acr.h"
#include "../unit/registry_fake.h"

#define NOW_S UINT64_C(1767323045)

static struct fake fake;

static void no_timer(void *host, uint64_t delay_us)
{
    (void)host;
    (void)delay_us;
}

static uint64_t wall_s(void *host)
{
    (void)host;
    return NOW_S;
}

static int no_file(void *host, const char *path, bool secret, struct acr_file *out)
{
    (void)host;
    (void)path;
    (void)secret;
    out->why[0] = '\0';
    return E_NOT_FOUND;
}

static struct acr *make(void)
{
    static const struct acr_host host = {NULL, no_timer, wall_s, no_file, NULL};
    static const struct acr_config config = {.instances = {"cri-a", "cri-b"},
                                             .instance_count = 2,
                                             .region = "",
                                             .vpc = "",
                                             .keys_from = ACR_KEYS_FILE,
                                             .access_key_file = "/k",
                                             .ram_role = "",
                                             .role_arn = "",
                                             .provider_arn = "",
                                             .token_file = "",
                                             .assume_role_arn = "",
                                             .sts_host = "",
                                             .cr_url = "",
                                             .sts_url = "",
                                             .metadata_url = ""};
    struct acr *acr = NULL;
    int err = acr_new(&fake.env, &fake.engine, &host, &config, &acr);

    ASSERT(err == 0);
    return acr;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct acr *first, *second;
    char *text = NULL, *again = NULL;
    size_t bytes = 0, again_bytes = 0;

    fake_init(&fake, 1);
    first = make();
    second = make();
    if (acr_recall(first, (const char *)data, size) == 0) {
        int err = acr_remember(first, &text, &bytes);

        ASSERT(err == 0);
        err = acr_recall(second, text, bytes);
        ASSERT(err == 0);
        err = acr_remember(second, &again, &again_bytes);
        ASSERT(err == 0);
        ASSERT(bytes == again_bytes && memcmp(text, again, bytes) == 0);
    }
    (void)fake.env.alloc(fake.env.host, text, 0);
    (void)fake.env.alloc(fake.env.host, again, 0);
    acr_free(first);
    acr_free(second);
    ASSERT(fake.allocations == 0);
    return 0;
}

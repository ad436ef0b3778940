/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal keygen`: a cluster secret of 256 bits from the system's randomness. */
#include "cli.h"

#include <sodium.h>
#include <string.h>

#include "bytes.h"
#include "secret_file.h"

static int print_secret(const struct cli_context *context)
{
    uint8_t secret[CLUSTER_SECRET_BYTES];
    char text[2 * CLUSTER_SECRET_BYTES + 1];
    randombytes_buf(secret, sizeof secret);
    hex_encode(secret, sizeof secret, text);
    int written = fprintf(context->out, "%s\n", text);
    bool failed = written < 0 || fflush(context->out) != 0;
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(text, sizeof text);
    return failed ? cli_failed(context, "keygen", "cannot write") : CLI_OK;
}

int cli_keygen(const struct cli_context *context, int argc, char **argv)
{
    struct config_error error = {""};
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--out") == 0 && i + 1 < argc)
            path = argv[++i];
        else if (strncmp(argv[i], "--out=", 6) == 0)
            path = argv[i] + 6;
        else
            return cli_usage(context, "keygen", "unknown argument \"%s\"", argv[i]);
    }
    if (sodium_init() < 0)
        return cli_failed(context, "keygen", "no source of randomness");
    if (path == NULL)
        return print_secret(context);
    if (*path == '\0')
        return cli_usage(context, "keygen", "--out needs a file");
    if (secret_file_create(path, &error) != 0)
        return cli_failed(context, "keygen", "%s", error.text);
    return CLI_OK;
}

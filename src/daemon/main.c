/* SPDX-License-Identifier: Apache-2.0 */
/* The program `shoal`: everything is in cli.c, so that tests can link it. */
#include "cli.h"

#include <unistd.h>

int main(int argc, char **argv)
{
    const struct cli_context context = {.out = stdout, .err = stderr, .environment = environ};
    return cli_main(&context, argc, argv);
}

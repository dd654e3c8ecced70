/* main.c: the only place that knows every subcommand. */
#include <stdio.h>

int main(void)
{
	fprintf(stderr, "tokenmill: no subcommand yet\n");
	return 1;
}

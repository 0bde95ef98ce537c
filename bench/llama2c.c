// Times llama2.c's forward pass: the greedy continuation of the first token, again and again. Built by llama2c.mjs.
#define TESTING
#include RUN_C

int main(int argc, char *argv[]) {
  if (argc != 4) return 2;
  int tokens = atoi(argv[2]), rounds = atoi(argv[3]);
  Transformer transformer;
  build_transformer(&transformer, argv[1]);
  for (int round = 0; round < rounds; round++) {
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    int token = 1;
    for (int position = 0; position < tokens; position++) {
      token = sample_argmax(forward(&transformer, token, position), transformer.config.vocab_size);
      if (round == 0) printf("%d ", token);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = ended.tv_sec - began.tv_sec + 1e-9 * (ended.tv_nsec - began.tv_nsec);
    printf("\n%f", tokens / seconds);
  }
  printf("\n");
  free_transformer(&transformer);
  return 0;
}

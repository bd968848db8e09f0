/**
 * Answers are written by code that is made of their schemas, and that code is made when a route first gives such an answer: for all routes at
 * once, at the start, it took a second, for answers that mostly nobody asks for.
 */
import { SerializerSelector } from '@fastify/fast-json-stringify-compiler';

type Factory = ReturnType<typeof SerializerSelector>;

export function lazySerializers(): Factory {
  const factory = SerializerSelector();
  return (schemas, options) => {
    const compile = factory(schemas, options);
    return (route) => {
      let serialize: ReturnType<typeof compile> | undefined;
      return (answer: unknown) => (serialize ??= compile(route))(answer);
    };
  };
}

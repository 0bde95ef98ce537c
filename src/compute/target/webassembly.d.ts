// The part of the WebAssembly JavaScript API that Retort uses; TypeScript has it only among the types of browsers.

declare global {
  type BufferSource = ArrayBuffer | ArrayBufferView<ArrayBuffer>;

  namespace WebAssembly {
    interface MemoryDescriptor {
      initial: number;
      maximum?: number;
      shared?: boolean;
    }
    class Memory {
      constructor(descriptor: MemoryDescriptor);
      readonly buffer: ArrayBuffer;
      /** Grows by pages of 65536 bytes; gives the former number of pages. */
      grow(pages: number): number;
    }
    class Module {
      constructor(bytes: BufferSource);
      private readonly brand: never;
    }
    class Instance {
      constructor(module: Module, imports?: Record<string, Record<string, unknown>>);
      readonly exports: Record<string, unknown>;
    }
    class RuntimeError extends Error {}
    function validate(bytes: BufferSource): boolean;
  }
}

export {};

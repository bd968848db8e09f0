export { Estimator, SCAN_CHUNK_BYTES, type Estimate, type SizeEstimate } from './estimator.ts';

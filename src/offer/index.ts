// `ukshm/offer`: pages given to another process, by its number.
export type { OfferEnd } from '../sys/offers.js';
export { type ClaimOptions, claim } from './claim.js';
export { IncomingOffer, type IncomingOptions, incomingOffers } from './incoming.js';
export { listOffers, type OfferInfo } from './list.js';
export { Offer, type OfferOptions, type OfferRange, offer } from './offer.js';
export { Pages, type PagesOptions } from './pages.js';
export {
  type Drop,
  type Grant,
  VMO_DISOWN,
  VMO_DROP_R,
  VMO_DROP_W,
  VMO_DROP_X,
  VMO_GRANT_R,
  VMO_GRANT_W,
  VMO_GRANT_X,
  VMO_GRANTALL,
} from './rights.js';
